"""Figures of two sets of features, real and generated: one file a metric, found by its file's name."""

"""Trackers: programs that draw the course of runs. One file each; a name is its file's name."""

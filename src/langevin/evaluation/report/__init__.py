"""The report: one page from facts and pictures, self-contained, readable on a phone and on paper, in English and Chinese."""

from langevin.evaluation.report.page import render

__all__ = ["render"]

"""Guidance: wrappers Denoiser -> Denoiser, one a file."""

from langevin.guidance.cfg import ClassifierFree

__all__ = ["ClassifierFree"]

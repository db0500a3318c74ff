"""Noising processes, one a file; see base."""

from langevin.diffusion.process.base import Process
from langevin.diffusion.process.gaussian import GaussianDiffusion

__all__ = ["GaussianDiffusion", "Process"]

"""Noising processes, one a file; see base."""

from langevin.diffusion.process.base import Process
from langevin.diffusion.process.categorical import CategoricalDiffusion
from langevin.diffusion.process.gaussian import GaussianDiffusion
from langevin.diffusion.process.masked import MaskedDiffusion
from langevin.diffusion.process.uniform import UniformDiffusion

__all__ = ["CategoricalDiffusion", "GaussianDiffusion", "MaskedDiffusion", "Process", "UniformDiffusion"]

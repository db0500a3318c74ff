"""The mathematics: schedules, process, posterior, parametrization, denoiser, weights, time laws, losses, likelihood."""

from langevin.diffusion.denoiser import Condition, Denoiser, LogitsDenoiser, NetworkDenoiser
from langevin.diffusion.posterior import Categorical, Gaussian, Posterior
from langevin.diffusion.process import (
    CategoricalDiffusion,
    GaussianDiffusion,
    MaskedDiffusion,
    Process,
    UniformDiffusion,
)
from langevin.diffusion.rescheduled import Rescheduled
from langevin.diffusion.schedules import Schedule

__all__ = [
    "Categorical",
    "CategoricalDiffusion",
    "Condition",
    "Denoiser",
    "Gaussian",
    "GaussianDiffusion",
    "LogitsDenoiser",
    "MaskedDiffusion",
    "NetworkDenoiser",
    "Posterior",
    "Process",
    "Rescheduled",
    "Schedule",
    "UniformDiffusion",
]

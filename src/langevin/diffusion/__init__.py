"""The mathematics: schedules, process, posterior, parametrization, denoiser, weights, time laws, losses, likelihood."""

from langevin.diffusion.denoiser import Condition, Denoiser, NetworkDenoiser
from langevin.diffusion.posterior import Gaussian, Posterior
from langevin.diffusion.process import GaussianDiffusion, Process
from langevin.diffusion.schedules import Schedule

__all__ = [
    "Condition",
    "Denoiser",
    "Gaussian",
    "GaussianDiffusion",
    "NetworkDenoiser",
    "Posterior",
    "Process",
    "Schedule",
]

"""k-diffusion's denoisers: a callable (x, sigma (B,), **extra_args) -> x0, with x = x0 + sigma eps.

`from_callable` makes a Denoiser of one, `to_callable` makes one of a Denoiser; conditions are the extra arguments. The two are
each other's inverses. So langevin's solvers and guidance run on models wrapped for k-diffusion, and its samplers on ours.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, GaussianDiffusion, Posterior
from langevin.diffusion.schedules import VE
from langevin.diffusion.shapes import expand_like


class _FromCallable(Denoiser):
    def __init__(self, function: Callable[..., Tensor], schedule: VE) -> None:
        super().__init__()
        self.function = function  # a module is registered: it moves along and its parameters are ours
        self.process = GaussianDiffusion(schedule)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        sigma = self.process.schedule.sigma(t).to(x_t.device, x_t.dtype).expand(len(x_t))
        return Gaussian(self.function(x_t, sigma, **(cond or {})))


def from_callable(function: Callable[..., Tensor], *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Denoiser:
    """The Denoiser that a k-diffusion callable is, on the schedule VE(sigma_min, sigma_max).

    Args:
        function: (x (B, ...), sigma (B,), **cond) -> x0_hat (B, ...). It is asked at sigma = 0 only by solvers that start there.

    `diffusion.Rescheduled` moves it to any other schedule.
    """
    return _FromCallable(function, VE(sigma_min, sigma_max))


def to_callable(denoiser: Denoiser) -> Callable[..., Tensor]:
    """(x (B, ...), sigma (B,), **cond) -> x0_hat (B, ...): what k-diffusion's samplers take, from any schedule."""
    schedule = denoiser.process.schedule

    def function(x: Tensor, sigma: Tensor, **cond: Tensor) -> Tensor:
        t = schedule.inverse(-2 * sigma.double().log()).clamp(0, 1)
        scale = torch.hypot(schedule.alpha(t), schedule.sigma(t)) / torch.hypot(torch.ones_like(t), sigma.double())
        x0_hat: Tensor = denoiser(expand_like(scale, x) * x, t, cond or None).mean
        return x0_hat

    return function

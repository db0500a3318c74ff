"""A denoiser on another schedule. sigma / alpha alone decides what x_t says of x0, so that at equal log SNR

    x0_hat'(x, t) = x0_hat(x h'' / h', t''),   log_snr''(t'') = log_snr'(t),   h = sqrt(alpha^2 + sigma^2)

where ' is the new schedule and '' the old one; h'' / h' = alpha'' / alpha' = sigma'' / sigma', without 0 / 0 at either end.
Where the new schedule is noisier than the old one ever is, the old one is asked at its end.
"""

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.posterior import Posterior
from langevin.diffusion.process import GaussianDiffusion
from langevin.diffusion.schedules import Schedule
from langevin.diffusion.shapes import expand_like


class Rescheduled(Denoiser):
    """`denoiser`, read by a schedule it was not trained on; exactly."""

    def __init__(self, denoiser: Denoiser, schedule: Schedule) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.process = GaussianDiffusion(schedule)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        old, new, t = self.denoiser.process.schedule, self.process.schedule, t.double()
        at = old.inverse(torch.maximum(new.log_snr(t), old.log_snr(torch.ones_like(t)))).clamp(0, 1)
        scale = torch.hypot(old.alpha(at), old.sigma(at)) / torch.hypot(new.alpha(t), new.sigma(t))
        posterior: Posterior = self.denoiser(expand_like(scale, x_t) * x_t, at, cond)
        return posterior

"""Guidance where it helps: Kynkaanniemi et al., "Applying Guidance in a Limited Interval", 2024.

Inside an interval of sigma / alpha one denoiser answers, outside it another: the guided one and the plain one.
"""

import math

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.diffusion.shapes import expand_like
from langevin.errors import UsageError


class Interval(Denoiser):
    """`inside` where low <= sigma / alpha <= high, else `outside`; both on one schedule.

    Only the one that is needed is asked. In a batch of times on both sides both are, and the answer is a point mass.
    """

    def __init__(self, inside: Denoiser, outside: Denoiser, low: float = 0.0, high: float = math.inf) -> None:
        super().__init__()
        if not 0 <= low <= high:
            raise UsageError(f"an interval of sigma / alpha has 0 <= low <= high, not {low:g} and {high:g}")
        if inside.process.schedule != outside.process.schedule:
            raise UsageError(
                "both denoisers must be on one schedule", help="diffusion.Rescheduled moves one to another"
            )
        self.inside, self.outside, self.low, self.high = inside, outside, float(low), float(high)
        self.process = inside.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        ratio = torch.exp(-0.5 * self.process.schedule.log_snr(t.double()))
        acts = (ratio >= self.low) & (ratio <= self.high)
        if bool(acts.all()):
            return self.inside(x_t, t, cond)
        if not bool(acts.any()):
            return self.outside(x_t, t, cond)
        means = self.inside(x_t, t, cond).mean, self.outside(x_t, t, cond).mean
        return Gaussian(torch.where(expand_like(acts, x_t) > 0, *means))

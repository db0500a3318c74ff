"""Variance preserving with alpha_t^2 a sigmoid in t: Jabri et al., "Scalable Adaptive Computation for Iterative
Generation", 2022, algorithm 1, rescaled to run from 1 at t = 0 to 0 at t = 1.

    alpha_t^2 = (S(end) - S(w)) / (S(end) - S(start)),  w = (start + t (end - start)) / tau,  S the logistic function
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule, from_ratio


def _difference(a: Tensor, gap: Tensor) -> Tensor:
    """S(a + gap) - S(a) without cancellation."""
    return torch.sinh(gap / 2) / (2 * torch.cosh((a + gap) / 2) * torch.cosh(a / 2))


@dataclass(frozen=True)
class Sigmoid(Schedule):
    """`tau` < 1 spends more time at the ends."""

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    def _ends(self, t: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(t)
        return one * (self.start / self.tau), one * (self.end / self.tau)

    def alpha(self, t: Tensor) -> Tensor:
        start, end = self._ends(t)
        return torch.sqrt(_difference(-end, (1 - t) * (end - start)) / _difference(-end, end - start))

    def sigma(self, t: Tensor) -> Tensor:
        start, end = self._ends(t)
        return torch.sqrt(_difference(start, t * (end - start)) / _difference(start, end - start))

    def inverse(self, log_snr: Tensor) -> Tensor:
        alpha2, sigma2 = from_ratio(log_snr)
        start, end = self._ends(log_snr)
        p = alpha2 * torch.sigmoid(start) + sigma2 * torch.sigmoid(end)
        q = alpha2 * torch.sigmoid(-start) + sigma2 * torch.sigmoid(-end)
        # w - start, where it is small, from the small sigma^2
        rise = sigma2 * _difference(start, end - start)
        near = torch.log1p(rise / torch.sigmoid(start)) - torch.log1p(-rise / torch.sigmoid(-start))
        gap = torch.where(sigma2 < 0.5, near, p.log() - q.log() - start)
        return (gap / (end - start)).clamp(0, 1)

"""Variance preserving, alpha_t^2 = cos^2(b) / cos^2(a), b = pi/2 (t + s) / (1 + s), a = b at t = 0.

Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, eq. 17, in continuous time: it reaches
alpha = 0 at t = 1 and needs no clipping of betas.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule, from_ratio


@dataclass(frozen=True)
class Cosine(Schedule):
    """s > 0 keeps the first steps from being too small."""

    s: float = 0.008

    @property
    def _start(self) -> float:
        return math.pi / 2 * self.s / (1 + self.s)

    def alpha(self, t: Tensor) -> Tensor:  # cos b = sin(pi/2 - b), exact 0 at t = 1
        return torch.sin(math.pi / 2 * (1 - t) / (1 + self.s)) / math.cos(self._start)

    def sigma(self, t: Tensor) -> Tensor:  # cos^2 a - cos^2 b = sin(b - a) sin(b + a)
        width = math.pi / 2 * t / (1 + self.s)
        return torch.sqrt(torch.sin(width) * torch.sin(width + 2 * self._start)) / math.cos(self._start)

    def inverse(self, log_snr: Tensor) -> Tensor:
        alpha2, sigma2 = from_ratio(log_snr)
        cos2, sin2 = math.cos(self._start) ** 2, math.sin(self._start) ** 2
        sin_b, cos_b = torch.sqrt(sin2 + sigma2 * cos2), torch.sqrt(alpha2 * cos2)
        # sin(b - a) = sigma^2 cos^2 a / sin(b + a) and cos(b - a), neither of which cancels
        sin_sum = sin_b * math.cos(self._start) + cos_b * math.sin(self._start)
        cos_gap = cos_b * math.cos(self._start) + sin_b * math.sin(self._start)
        width = torch.atan2(torch.where(sigma2 > 0, sigma2 * cos2 / sin_sum, 0 * sigma2), cos_gap)
        return ((1 + self.s) * width / (math.pi / 2)).clamp(0, 1)

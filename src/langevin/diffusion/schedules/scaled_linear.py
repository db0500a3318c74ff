"""Variance preserving with sqrt(beta) linear in t: the continuous limit of latent diffusion's betas (Rombach 2022).

beta(t) = (a + t (b - a))^2,   integral of beta from 0 to t = ((a + t (b - a))^3 - a^3) / (3 (b - a))
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class ScaledLinear(Schedule):
    """beta_min and beta_max are 1000 times the discrete end betas .00085 and .012."""

    beta_min: float = 0.85
    beta_max: float = 12.0

    def _integral(self, t: Tensor) -> Tensor:
        a, d = math.sqrt(self.beta_min), math.sqrt(self.beta_max) - math.sqrt(self.beta_min)
        return t * (a * a + a * d * t + d * d * t.square() / 3)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def inverse(self, log_snr: Tensor) -> Tensor:
        b = -torch.nn.functional.logsigmoid(log_snr)  # integral of beta = -log alpha^2
        a, d = math.sqrt(self.beta_min), math.sqrt(self.beta_max) - math.sqrt(self.beta_min)
        root = (a**3 + 3 * d * b).pow(1 / 3)  # a + t d; root - a = (root^3 - a^3) / (root^2 + root a + a^2)
        return 3 * b / (root.square() + root * a + a * a)

"""Variance preserving with beta(t) = beta_min + t (beta_max - beta_min): Song et al. 2021, eq. 32-33.

log alpha_t = -1/4 t^2 (beta_max - beta_min) - 1/2 t beta_min
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class VPLinear(Schedule):
    """The continuous limit of DDPM's linear betas."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _integral(self, t: Tensor) -> Tensor:
        return t * self.beta_min + 0.5 * t.square() * (self.beta_max - self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def inverse(self, log_snr: Tensor) -> Tensor:
        b = -torch.nn.functional.logsigmoid(log_snr)  # integral of beta = -log alpha^2
        slope = self.beta_max - self.beta_min
        return 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * b))

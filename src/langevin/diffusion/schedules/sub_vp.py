"""Sub-variance preserving: Song et al. 2021, eq. 29: alpha as in VP-linear, sigma_t = 1 - alpha_t^2.

sigma / alpha = r  =>  alpha = (sqrt(r^2 + 4) - r) / 2
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class SubVP(Schedule):
    """Its variance is below that of VP at every time."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _integral(self, t: Tensor) -> Tensor:
        return t * self.beta_min + 0.5 * t.square() * (self.beta_max - self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self._integral(t))

    def inverse(self, log_snr: Tensor) -> Tensor:
        r = torch.exp(-0.5 * log_snr)
        b = 2 * torch.asinh(r / 2)  # -log alpha^2
        slope = self.beta_max - self.beta_min
        return 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * b))

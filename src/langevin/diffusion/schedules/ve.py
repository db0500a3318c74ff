"""Variance exploding: alpha = 1, sigma geometric in t (Song et al. 2021, eq. 30-31; Karras et al. 2022, table 1).

    sigma_t^2 = sigma_max^2 (r^2t - 1) / (r^2 - 1),  r = sigma_max / sigma_min

The - 1 is Song's [sigma^2(t) - sigma^2(0)]: at t = 0 there are the data themselves and nothing is left over. Where sigma
is well above sigma_min it is the plain geometric sequence. The range .002 to 80 is Karras's.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class VE(Schedule):
    """sigma runs from 0 to sigma_max; sigma_min is the scale at which its growth turns geometric."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @property
    def _k(self) -> float:
        return 2 * math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * torch.sqrt(torch.expm1(self._k * t) / math.expm1(self._k))

    def inverse(self, log_snr: Tensor) -> Tensor:
        var = torch.exp(-log_snr) / self.sigma_max**2
        return torch.log1p(var * math.expm1(self._k)) / self._k

"""Flow matching's straight line: alpha = 1 - t, sigma = t (Lipman et al. 2023; Liu et al. 2023, rectified flow)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class Flow(Schedule):
    """x_t = (1 - t) x0 + t eps."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def inverse(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2)

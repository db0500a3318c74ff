"""Zero terminal SNR: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024, algorithm 1.

    alpha'_t = (alpha_t - alpha_1) alpha_first / (alpha_first - alpha_1)

for a variance-preserving schedule. A continuous one has alpha_first = 1; a table of betas has the alpha of its first entry
and becomes a table again: `zero_terminal(Tabulated)`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule, from_ratio
from langevin.diffusion.schedules.tabulated import Tabulated


@dataclass(frozen=True)
class ZeroTerminal(Schedule):
    """A continuous variance-preserving schedule, its alpha shifted and stretched so that alpha = 0 at t = 1."""

    base: Schedule

    def __post_init__(self) -> None:
        middle = torch.tensor(0.5, dtype=torch.float64)
        if abs(self.base.alpha(middle).square() + self.base.sigma(middle).square() - 1) > 1e-9:
            raise ValueError("zero terminal SNR is for variance-preserving schedules: alpha^2 + sigma^2 = 1")

    @property
    def _last(self) -> Tensor:
        return self.base.alpha(torch.ones((), dtype=torch.float64))

    def alpha(self, t: Tensor) -> Tensor:
        last = self.base.alpha(torch.ones_like(t))
        return (self.base.alpha(t) - last) / (1 - last)

    def sigma(self, t: Tensor) -> Tensor:  # 1 - alpha' = (1 - alpha) / (1 - last),  1 - alpha = sigma^2 / (1 + alpha)
        last = self.base.alpha(torch.ones_like(t))
        short = self.base.sigma(t).square() / (1 + self.base.alpha(t)) / (1 - last)
        return torch.sqrt(short * (2 - short))

    def inverse(self, log_snr: Tensor) -> Tensor:
        alpha2, sigma2 = from_ratio(log_snr)
        last = self._last.to(log_snr.device, log_snr.dtype)
        short = sigma2 / (1 + torch.sqrt(alpha2)) * (1 - last)  # 1 - alpha of the base
        alpha = torch.sqrt(alpha2) * (1 - last) + last
        time = self.base.inverse(2 * alpha.log() - torch.log(short * (2 - short)))
        return torch.where(alpha2 > 0, time, torch.ones_like(time))


def zero_terminal(schedule: Schedule) -> Schedule:
    """The schedule with zero terminal SNR; a table of betas stays a table (its last beta becomes 1)."""
    if not isinstance(schedule, Tabulated):
        return ZeroTerminal(schedule)
    alpha = torch.exp(0.5 * torch.log1p(-torch.tensor(schedule.betas, dtype=torch.float64)).cumsum(0))
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    keep = torch.cat([alpha[:1], alpha[1:] / alpha[:-1]])
    return Tabulated(tuple((1 - keep.square()).tolist()))

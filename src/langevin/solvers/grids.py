"""Grids: which times a solver visits, N -> N + 1 decreasing times from 1 to 0, float64 on the CPU.

A grid is apart from the solver and from the law by which times were drawn in training. Any list of times is one too.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules import Schedule, Tabulated


class Grid(ABC):
    """A frozen dataclass."""

    @abstractmethod
    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        """(num_steps + 1,) times, strictly decreasing, first 1, last 0; num_steps >= 1."""


def _fraction(num_steps: int) -> Tensor:
    """(num_steps,) 0, 1/(N-1), ..., 1; [0] where there is one step."""
    return torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1)


def _at_ratios(schedule: Schedule, ratios: Tensor) -> Tensor:
    """Times with these sigma / alpha, decreasing; the first becomes t = 1, and t = 0 follows the last."""
    times = schedule.inverse(-2 * ratios.log())
    return torch.cat([times.new_ones(1), times[1:], times.new_zeros(1)])


def _ends(schedule: Schedule, ratio_min: float, ratio_max: float) -> tuple[float, float]:
    """The ends of sigma / alpha, where the schedule has them."""
    last = torch.exp(-0.5 * schedule.log_snr(torch.ones((), dtype=torch.float64))).item()
    high = min(ratio_max, last)
    return min(ratio_min, high / 2), high


@dataclass(frozen=True)
class Uniform(Grid):
    """Equal steps in t."""

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        return 1 - torch.arange(num_steps + 1, dtype=torch.float64) / num_steps


@dataclass(frozen=True)
class Trailing(Grid):
    """Equal steps counted from t = 1, rounded to the entries of a table of betas (Lin et al. 2024, table 2)."""

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        while not isinstance(schedule, Tabulated) and hasattr(schedule, "base"):
            schedule = schedule.base
        times = Uniform()(schedule, num_steps)
        if not isinstance(schedule, Tabulated):
            return times
        if num_steps > schedule.T:
            raise ValueError(f"{num_steps} steps do not fit on {schedule.T} entries; use another grid")
        return torch.round(times * schedule.T) / schedule.T


@dataclass(frozen=True)
class LogSNR(Grid):
    """Equal steps in log SNR between the ends, then one to t = 0 (Lu et al. 2022, section 3.3)."""

    ratio_min: float = 0.002
    ratio_max: float = 80.0

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        low, high = _ends(schedule, self.ratio_min, self.ratio_max)
        return _at_ratios(schedule, high * (low / high) ** _fraction(num_steps))


@dataclass(frozen=True)
class Karras(Grid):
    """sigma / alpha = (max^(1/rho) + i/(N-1) (min^(1/rho) - max^(1/rho)))^rho, then 0 (Karras et al. 2022, eq. 5)."""

    rho: float = 7.0
    ratio_min: float = 0.002
    ratio_max: float = 80.0

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        low, high = _ends(schedule, self.ratio_min, self.ratio_max)
        root_low, root_high = low ** (1 / self.rho), high ** (1 / self.rho)
        return _at_ratios(schedule, (root_high + _fraction(num_steps) * (root_low - root_high)) ** self.rho)

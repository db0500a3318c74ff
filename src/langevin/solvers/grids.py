"""Grids: which times a solver visits, N -> N + 1 decreasing times from 1 to 0, float64 on the CPU.

A grid is apart from the solver and from the law by which times were drawn in training. Any list of times is one: `Times`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from langevin.diffusion.schedules import Schedule, Tabulated

T = TypeVar("T", float, Tensor)


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


def _last_ratio(schedule: Schedule) -> float:
    """sigma / alpha at t = 1; infinite where alpha is 0."""
    return torch.exp(-0.5 * schedule.log_snr(torch.ones((), dtype=torch.float64))).item()


def stretched(alpha: T, sigma: T, low: float, high: float) -> T:
    """e^psi = (r + low) / (1 + r / high), r = sigma / alpha: log r between two scales, finite at r = 0 and r = infinity."""
    return (sigma + low * alpha) / (alpha + sigma / high)


def unstretched(e: T, low: float, high: float) -> T:
    """r of e^psi."""
    return (e - low) / (1 - e / high)


def _ends(schedule: Schedule, ratio_min: float, ratio_max: float) -> tuple[float, float]:
    """The ends of sigma / alpha, where the schedule has them."""
    high = min(ratio_max, _last_ratio(schedule))
    return min(ratio_min, high / 2), high


def _entries(schedule: Schedule, num_steps: int) -> int:
    """Entries of the table of betas under a schedule; 1000 where there is none. Raises ValueError if steps do not fit."""
    while not isinstance(schedule, Tabulated) and hasattr(schedule, "base"):
        schedule = schedule.base
    entries = schedule.T if isinstance(schedule, Tabulated) else 1000
    if num_steps > entries:
        raise ValueError(f"{num_steps} steps do not fit on {entries} entries; use another grid")
    return entries


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
        entries = _entries(schedule, num_steps)
        return torch.round(times * entries) / entries


@dataclass(frozen=True)
class Linspace(Grid):
    """Entries of a table of betas evenly from the last to the first, then t = 0 (Lin et al. 2024, table 2)."""

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        entries = _entries(schedule, num_steps)
        index = torch.round((1 - _fraction(num_steps)) * (entries - 1))
        return torch.cat([(index + 1) / entries, index.new_zeros(1)])


@dataclass(frozen=True)
class Leading(Grid):
    """Every (T // N)th entry of a table of betas from entry `offset` on (Lin et al. 2024, table 2), then t = 0.

    The first is moved to t = 1, where the noise is drawn: as published, one starts from pure noise at an earlier time.
    """

    offset: int = 0

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        entries = _entries(schedule, num_steps)
        if not 0 <= self.offset <= entries // num_steps:
            raise ValueError(f"an offset of {self.offset} does not fit {num_steps} steps on {entries} entries")
        index = torch.arange(num_steps - 1, 0, -1, dtype=torch.float64)
        index = (index - 1) * (entries // num_steps) + self.offset
        return torch.cat([index.new_ones(1), (index + 1) / entries, index.new_zeros(1)])


@dataclass(frozen=True)
class FlowShift(Grid):
    """Equal steps u of t moved towards noise, t = shift u / (1 + (shift - 1) u) (Esser et al. 2024, eq. 23).

    On the flow schedule that multiplies sigma / alpha by `shift`: larger pictures need more.
    """

    shift: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift must be positive, not {self.shift}")

    @staticmethod
    def of_tokens(tokens: int) -> "FlowShift":
        """FLUX's shift for a picture of so many tokens: log shift is linear, .5 at 256 and 1.15 at 4096."""
        return FlowShift(math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)))

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        u = Uniform()(schedule, num_steps)
        return self.shift * u / (1 + (self.shift - 1) * u)


@dataclass(frozen=True)
class Beta(Grid):
    """Equal quantiles of Beta(a, b) in t: dense at both ends where a, b < 1 (Lee et al. 2024, "Beta Sampling")."""

    a: float = 0.6
    b: float = 0.6

    def __post_init__(self) -> None:
        if not (0 < self.a < math.inf and 0 < self.b < math.inf):
            raise ValueError(f"a and b must be positive, not {self.a} and {self.b}")

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        from scipy.special import betaincinv

        return torch.from_numpy(betaincinv(self.a, self.b, Uniform()(schedule, num_steps).numpy()))


@dataclass(frozen=True)
class Times(Grid):
    """These very times, decreasing from 1 to 0. Another number of steps is read off between them, evenly in their index."""

    times: tuple[float, ...] = (1.0, 0.0)

    def __post_init__(self) -> None:
        times = tuple(float(t) for t in self.times)
        object.__setattr__(self, "times", times)
        if len(times) < 2 or times[0] != 1 or times[-1] != 0 or not all(s < t for t, s in pairwise(times)):
            raise ValueError("times must be at least two numbers, strictly decreasing from 1 to 0")

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        times = torch.tensor(self.times, dtype=torch.float64)
        at = torch.arange(num_steps + 1, dtype=torch.float64) * (len(times) - 1) / num_steps
        i = at.floor().long().clamp(max=len(times) - 2)
        return torch.lerp(times[i], times[i + 1], at - i)


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


@dataclass(frozen=True)
class Polyexponential(Grid):
    """log(sigma / alpha) = min + (1 - i/(N-1))^rho (max - min), then 0 (k-diffusion); rho = 1 is `log_snr`."""

    rho: float = 1.0
    ratio_min: float = 0.002
    ratio_max: float = 80.0

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        low, high = _ends(schedule, self.ratio_min, self.ratio_max)
        return _at_ratios(schedule, low * (high / low) ** ((1 - _fraction(num_steps)) ** self.rho))


@dataclass(frozen=True)
class Scales(Grid):
    """Dense between the scales of the data, and never out of breath: no smallest or largest noise level to choose.

    With psi = log((r + low) / (1 + r / high)), r = sigma / alpha, which is finite at r = 0 and at r = infinity, and u = i / N,

        psi = psi_max + (u + crowd u (1 - u)) (psi_min - psi_max)

    crowd > 0 makes the steps near the data smaller. Low and high are in units of the data's standard deviation.
    """

    low: float = 0.2
    high: float = 20.0
    crowd: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf or not 0 <= self.crowd < 1:
            raise ValueError(f"0 < low < high and 0 <= crowd < 1, not {self.low}, {self.high} and {self.crowd}")

    def __call__(self, schedule: Schedule, num_steps: int) -> Tensor:
        u = torch.arange(1, num_steps, dtype=torch.float64) / num_steps
        return self.visits(schedule, u + self.crowd * u * (1 - u))

    def shares(self, schedule: Schedule, times: Tensor) -> Tensor:
        """How far psi has come at `times`, from 0 at t = 1 to 1 at t = 0."""
        psi = stretched(schedule.alpha(times), schedule.sigma(times), self.low, self.high).log()
        first = self._first(schedule)
        return (psi - first) / (math.log(self.low) - first)

    def visits(self, schedule: Schedule, shares: Tensor) -> Tensor:
        """Times from 1 to 0 with those between at which psi has come so far: `shares` (N - 1,) gives (N + 1,)."""
        first = self._first(schedule)
        ratios = unstretched(torch.exp(first + shares * (math.log(self.low) - first)), self.low, self.high)
        return torch.cat([shares.new_ones(1), schedule.inverse(-2 * ratios.log()), shares.new_zeros(1)])

    def _first(self, schedule: Schedule) -> float:
        one = torch.ones((), dtype=torch.float64)
        return stretched(schedule.alpha(one), schedule.sigma(one), self.low, self.high).log().item()

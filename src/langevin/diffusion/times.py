"""Time laws: how t is drawn in training. Apart from the weight, and apart from the grid that a solver visits.

A law turns uniform numbers u in (0, 1) into times; give it `rng.uniforms` and the draws are stratified, with low
discrepancy. It returns the importance 1 / p(t) by which a loss is to be multiplied as well: 1 for laws that are part of the
objective, as the log-normal is, and the inverse density for those that only reduce its variance.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule


class TimeLaw(ABC):
    """A frozen dataclass."""

    @abstractmethod
    def __call__(self, u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """u (B,) float64 in (0, 1) -> (t (B,) in (0, 1], importance (B,))."""


@dataclass(frozen=True)
class Uniform(TimeLaw):
    """t uniform."""

    def __call__(self, u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        return u, torch.ones_like(u)


@dataclass(frozen=True)
class LogNormal(TimeLaw):
    """log(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        log_ratio = self.mean + self.std * torch.special.ndtri(u)
        return schedule.inverse(-2 * log_ratio).clamp(max=1), torch.ones_like(u)


@dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024, eq. 19)."""

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u)), torch.ones_like(u)


@dataclass(frozen=True)
class LossAware(TimeLaw):
    """p(t) proportional to sqrt(E[loss^2]) in each of `bins` equal parts of [0, 1] (Nichol & Dhariwal 2021, eq. 18).

    `update` gives the law that has seen a batch more; until each part was seen `warm` times, t is uniform. The mean of
    importance times loss does not depend on p.
    """

    bins: int = 64
    warm: int = 10
    decay: float = 0.9
    floor: float = 0.001
    moments: Tensor = field(default_factory=lambda: torch.zeros(0))
    counts: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.moments):
            object.__setattr__(self, "moments", torch.zeros(self.bins, dtype=torch.float64))
            object.__setattr__(self, "counts", torch.zeros(self.bins, dtype=torch.float64))

    @property
    def probabilities(self) -> Tensor:
        """(bins,) mass of each part."""
        if bool((self.counts < self.warm).any()):
            return torch.full((self.bins,), 1 / self.bins, dtype=torch.float64)
        p = self.moments.clamp(min=1e-60).sqrt()  # even where every loss is 0
        return (1 - self.floor) * p / p.sum() + self.floor / self.bins

    def __call__(self, u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        p = self.probabilities
        edges = torch.cat([p.new_zeros(1), p.cumsum(0)])
        edges[-1] = 1.0
        i = (torch.searchsorted(edges, u.contiguous(), right=True) - 1).clamp(0, self.bins - 1)
        t = (i + (u - edges[i]) / p[i]) / self.bins
        return t.clamp(2.0**-53, 1), 1 / (p[i] * self.bins)

    def update(self, t: Tensor, loss: Tensor) -> "LossAware":
        """The law after losses (B,) at times t (B,), without their importance; what is not finite is not counted."""
        square = loss.detach().cpu().double().square()
        i = (t.detach().cpu() * self.bins).long().clamp(max=self.bins - 1)[square.isfinite()]
        square = square[square.isfinite()]
        hits = torch.zeros_like(self.counts).index_add_(0, i, torch.ones_like(square))
        mean = torch.zeros_like(self.moments).index_add_(0, i, square) / hits.clamp(min=1)
        first = self.counts == 0
        blended = torch.where(first, mean, self.decay * self.moments + (1 - self.decay) * mean)
        moments = torch.where(hits > 0, blended, self.moments)
        return LossAware(self.bins, self.warm, self.decay, self.floor, moments, self.counts + hits)

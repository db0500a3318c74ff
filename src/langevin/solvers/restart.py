"""Restart sampling: Xu et al., "Restart Sampling for Improving Generative Processes", 2023, algorithm 2.

On the way down, at the first level at or below `low`, K times: noise is added up to `high`, and the solver comes down again.
The added noise forgets errors made above; the deterministic way down makes few. Levels are sigma / alpha.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Solver, levels
from langevin.solvers.edm import raised, rise
from langevin.solvers.heun import Heun


@dataclass(frozen=True)
class Restart(Solver[Any]):
    """Of the order of its base, in law.

    Attributes:
        base: any solver.
        intervals: (low, high, steps, times) each: `times` restarts from `high`, each of `steps` equal steps in log(sigma /
            alpha); 0 steps: as long as the grid's step that reached `low`.
    """

    evaluations = 0
    order = 2
    variants = ({}, {"intervals": ((0.06, 0.3, 0, 1), (0.5, 2.0, 0, 1))})

    base: Solver = field(default_factory=Heun)  # type: ignore[type-arg]
    intervals: tuple[tuple[float, float, int, int], ...] = ((0.06, 0.3, 0, 2),)

    def __post_init__(self) -> None:
        for low, high, steps, times in self.intervals:
            if not (0 < low < high and steps >= 0 and times >= 1):
                raise ValueError(
                    f"an interval is (low, high > low, steps >= 0, times >= 1), not {low, high, steps, times}"
                )
        object.__setattr__(self, "intervals", tuple(tuple(row) for row in self.intervals))  # lists, from a recipe

    @property
    def stochastic(self) -> bool:
        return bool(self.intervals) or self.base.stochastic

    def init(self, x_t: Tensor) -> Any:
        return self.base.init(x_t)

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        at: Level,
        to: Level,
        state: Any,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, Any]:
        x, state = self.base.step(denoiser, x_t, at, to, state, cond=cond, noise=noise)
        for down, times in self._ways(denoiser, at, to):
            for _ in range(times):
                x = rise(x, to, down[0], noise)
                state = self.base.init(x)
                for a, b in pairwise(down):
                    x, state = self.base.step(denoiser, x, a, b, state, cond=cond, noise=noise)
        return x, state

    def _ways(self, denoiser: Denoiser, at: Level, to: Level) -> Iterator[tuple[list[Level], int]]:
        """The levels from `high` down to `to`, and how often, for each interval whose `low` this step passed."""
        for low, high, steps, times in self.intervals:
            if to.sigma > 0 and at.sigma > low * at.alpha and to.sigma <= low * to.alpha:
                top = raised(denoiser, -math.log(high))
                num = steps or max(round((to.lam - top.lam) / (to.lam - at.lam)), 1)
                lam = torch.linspace(top.lam, to.lam, num + 1, dtype=torch.float64)[1:-1]
                between = denoiser.process.schedule.inverse(2 * lam)
                yield [top, *levels(denoiser.process.schedule, between), to], times

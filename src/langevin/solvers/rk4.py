"""The classical Runge-Kutta method of order 4, on  d(x / sigma) / dmu = x0_hat  with  mu = alpha / sigma.

Every stage is DDIM's step with another x0_hat; the last one takes (D_1 + 2 D_2 + 2 D_3 + D_4) / 6.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, level_at, toward


@dataclass(frozen=True)
class RK4(Solver[Nothing]):
    """Fourth order, four evaluations a step (one at either end)."""

    order = 4
    evaluations = 4

    def init(self, x_t: Tensor) -> Nothing:
        return Nothing()

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        at: Level,
        to: Level,
        state: Nothing,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, Nothing]:
        d_1 = denoiser(x_t, at.t, cond).mean
        if to.sigma == 0 or at.alpha == 0:
            return toward(x_t, d_1, at, to), state
        mu = (at.alpha / at.sigma + to.alpha / to.sigma) / 2
        middle = level_at(denoiser.process.schedule, math.log(mu))
        d_2 = denoiser(toward(x_t, d_1, at, middle), middle.t, cond).mean
        d_3 = denoiser(toward(x_t, d_2, at, middle), middle.t, cond).mean
        d_4 = denoiser(toward(x_t, d_3, at, to), to.t, cond).mean
        return toward(x_t, (d_1 + d_4).add_(d_2 + d_3, alpha=2).div_(6), at, to), state

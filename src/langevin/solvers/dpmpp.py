"""DPM-Solver++(2M): Lu et al. 2022, algorithm 2: exponential integrator in lam = log(alpha / sigma) on x0_hat.

    x_s = sigma_s / sigma_t x_t - alpha_s (e^-h - 1) D,   h = lam_s - lam_t
    D = (1 + 1/(2 rho)) x0_hat_t - 1/(2 rho) x0_hat_before,   rho = (lam_t - lam_before) / h

First order in the first step and wherever alpha_t = 0 or sigma_s = 0, where lam has no value.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Solver, combine, toward


@dataclass(frozen=True)
class Before:
    """The last x0_hat and its lam; None before the first step."""

    x0_hat: Tensor
    lam: float


@dataclass(frozen=True)
class DPMpp(Solver[Before | None]):
    """Second order, one evaluation a step."""

    order = 2

    def init(self, x_t: Tensor) -> Before | None:
        return None

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        at: Level,
        to: Level,
        state: Before | None,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, Before | None]:
        x0_hat = denoiser(x_t, at.t, cond).mean
        now = Before(x0_hat, at.lam)
        if state is None or not math.isfinite(to.lam - state.lam):
            return toward(x_t, x0_hat, at, to), now
        extra = (to.lam - at.lam) / (at.lam - state.lam) / 2  # 1 / (2 rho)
        blend = combine(1 + extra, x0_hat, -extra, state.x0_hat)
        return toward(x_t, blend, at, to), now

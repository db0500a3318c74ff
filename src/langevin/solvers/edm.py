"""Karras et al. 2022, algorithm 2: each step first goes back to a higher noise level, then takes a step of Heun's method.

    r_hat = r_t (1 + gamma),   x_hat / alpha = x / alpha + sqrt(r_hat^2 - r_t^2) s_noise eps,   r = sigma / alpha

The paper spreads s_churn evenly over N steps, gamma = s_churn / N. Here it is spread evenly over log r, so that the grid does
not matter: gamma = s_churn h / log(80 / 0.002) for a step of h in log r. On equal steps from 80 to 0.002 the two are one.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, combine, level, level_at
from langevin.solvers.heun import Heun

RANGE = math.log(80 / 0.002)
GAMMA_MAX = math.sqrt(2) - 1


@dataclass(frozen=True)
class EDM(Solver[Nothing]):
    """Second order, two evaluations a step (one at either end).

    Attributes:
        s_churn: noise added and removed again; 0 is Heun's method.
        s_tmin, s_tmax: sigma / alpha between which that is done.
        s_noise: scale of that noise; 1 is right, the paper takes up to 1.007 against a loss of detail.
    """

    order = 2
    evaluations = 2
    variants = ({}, {"s_churn": 10.0})

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.s_churn < math.inf and 0 <= self.s_noise < math.inf):
            raise ValueError("s_churn and s_noise must be finite and not negative")
        if not self.s_tmin <= self.s_tmax:
            raise ValueError(f"s_tmin must not lie above s_tmax: {self.s_tmin}, {self.s_tmax}")

    @property
    def stochastic(self) -> bool:
        return self.s_churn > 0

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
        h = to.lam - at.lam
        if self.s_churn > 0 and math.isfinite(h) and self.s_tmin <= at.sigma / at.alpha <= self.s_tmax:
            gamma = min(self.s_churn * h / RANGE, GAMMA_MAX)
            hat = raised(denoiser, at.lam - math.log1p(gamma))
            x_t = rise(x_t, at, hat, noise, self.s_noise)
            at = hat
        return Heun().step(denoiser, x_t, at, to, state, cond=cond, noise=noise)


def raised(denoiser: Denoiser, lam: float) -> Level:
    """The noise level at lam, or t = 1 where that is not as noisy."""
    schedule = denoiser.process.schedule
    top = level(schedule, torch.ones((), dtype=torch.float64))
    return top if lam <= top.lam else level_at(schedule, lam)


def rise(x: Tensor, at: Level, to: Level, noise: Noise, scale: float = 1.0) -> Tensor:
    """x at a noisier level: a draw from q(x_to | x_at), its noise scaled."""
    keep = to.alpha / at.alpha
    std = to.sigma * math.sqrt(max(-math.expm1(2 * (to.lam - at.lam)), 0.0))
    return combine(keep, x, std * scale, noise(x))

"""Heun's method in r = sigma / alpha on y = x / alpha: Karras et al. 2022, algorithm 1 without churn, for any schedule.

    dy/dr = (y - x0_hat) / r = z_hat

so that a step is DDIM's with the mean of the noises at both ends. At sigma_s = 0 it is DDIM's.
"""

from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, combine, toward


@dataclass(frozen=True)
class Heun(Solver[Nothing]):
    """Second order, two evaluations a step (one in a step that starts at alpha = 0 or ends at sigma = 0)."""

    order = 2
    evaluations = 2

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
        x0_hat = denoiser(x_t, at.t, cond).mean
        euler = toward(x_t, x0_hat, at, to)
        if to.sigma == 0 or at.alpha == 0:
            return euler, state
        # both slopes in one: x_s += alpha_s (r_s - r_t) / 2 (z_s - z_t)
        half = 0.5 * (to.sigma - to.alpha * at.sigma / at.alpha)
        x0_next = denoiser(euler, to.t, cond).mean
        z_s = combine(1 / to.sigma, euler, -to.alpha / to.sigma, x0_next)
        z_t = combine(1 / at.sigma, x_t, -at.alpha / at.sigma, x0_hat)
        return euler.add(z_s.sub_(z_t), alpha=half), state

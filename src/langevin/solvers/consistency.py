"""Multistep sampling of consistency models: Song et al. 2023, algorithm 1; the same as LCM's (Luo et al. 2023, algorithm 3).

x_s = alpha_s x0 + sigma_s eps,   x0 = f(x_t, t), where the probability flow from x_t ends
"""

from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, combine


@dataclass(frozen=True)
class Consistency(Solver[Nothing]):
    """For models whose answer is where the flow ends; exact in any number of steps if that answer is."""

    few_step = True

    @property
    def stochastic(self) -> bool:
        return True

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
        if to.sigma == 0:
            return x0_hat * to.alpha, state
        return combine(to.alpha, x0_hat, to.sigma, noise(x_t)), state

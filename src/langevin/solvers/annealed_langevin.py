"""Annealed Langevin dynamics: Song and Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution", 2019.

At each noise level, T times:   x <- x + step sigma^2 / 2 score(x) + sqrt(step) sigma eps   (algorithm 1; alpha_i = step sigma_i^2)

with sigma^2 score = alpha x0_hat - x. Between levels x / alpha is kept. The end is x0_hat (Jolicoeur-Martineau et al. 2021).
"""

import math
from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, combine


def langevin(denoiser: Denoiser, x: Tensor, here: Level, step: float, cond: Condition | None, noise: Noise) -> Tensor:
    """One move of Langevin dynamics at a noise level, `step` in units of sigma^2."""
    x0_hat = denoiser(x, here.t, cond).mean
    mean = combine(1 - step / 2, x, step / 2 * here.alpha, x0_hat)
    return mean.add_(noise(x), alpha=math.sqrt(step) * here.sigma)


@dataclass(frozen=True)
class AnnealedLangevin(Solver[Nothing]):
    """First order in law: levels must be near enough for `num_moves` moves to follow. Needs many evaluations.

    Attributes:
        num_moves: T, at each level but the last.
        size: step size in units of sigma^2, in (0, 2]; the paper's is 0.2.
    """

    variants = ({"num_moves": 3, "size": 0.7},)

    num_moves: int = 100
    size: float = 0.2

    def __post_init__(self) -> None:
        if self.num_moves < 1 or not 0 < self.size <= 2:
            raise ValueError(f"num_moves must be at least 1 and size lie in (0, 2]: {self.num_moves}, {self.size}")

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return self.num_moves

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
        if to.sigma == 0:
            return denoiser(x_t, at.t, cond).mean * to.alpha, state
        x = x_t * (to.alpha / at.alpha if at.alpha > 0 else to.sigma / at.sigma)
        for _ in range(self.num_moves):
            x = langevin(denoiser, x, to, self.size, cond, noise)
        return x, state

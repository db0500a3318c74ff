"""Predictor-corrector sampling: Song et al. 2021 ("Score-Based Generative Modeling"), algorithms 1, 4 and 5.

A step of any solver, then moves of Langevin dynamics at the level reached, of size 2 (snr |z| / |score|)^2 in the score. There
|z| and |score| are means over the batch; here they are what they are for true samples, |score| = |z| / sigma, so that
samples do not depend on each other and no number is read back: x <- x + 2 snr^2 sigma^2 score + 2 snr sigma eps.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.ancestral import Ancestral
from langevin.solvers.annealed_langevin import langevin
from langevin.solvers.base import Level, Solver


@dataclass(frozen=True)
class PredictorCorrector(Solver[Any]):
    """First order in law, once num_steps snr^2 num_corrections is large; the bias of a move is about snr^2, less near the data.

    Attributes:
        predictor: any solver.
        snr: sizes the moves, in (0, 1]; 0.16 for the paper's VE models.
        num_corrections: moves after each step but one that ends at sigma = 0.
    """

    variants = ({"snr": 0.6, "num_corrections": 3},)

    predictor: Solver = field(default_factory=Ancestral)  # type: ignore[type-arg]
    snr: float = 0.16
    num_corrections: int = 1

    def __post_init__(self) -> None:
        if self.num_corrections < 0 or not 0 < self.snr <= 1:
            raise ValueError(f"num_corrections must be >= 0, snr lie in (0, 1]: {self.num_corrections}, {self.snr}")

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return self.predictor.evaluations + self.num_corrections

    @property
    def stochastic(self) -> bool:
        return self.predictor.stochastic or self.num_corrections > 0

    def init(self, x_t: Tensor) -> Any:
        return self.predictor.init(x_t)

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
        x, state = self.predictor.step(denoiser, x_t, at, to, state, cond=cond, noise=noise)
        for _ in range(self.num_corrections if to.sigma > 0 else 0):
            x = langevin(denoiser, x, to, 4 * self.snr**2, cond, noise)
        return x, state

"""Strategic stochastic sampling of TCD models: Zheng et al., "Trajectory Consistency Distillation", 2024, algorithm 4.

A step of DDIM to s' = (1 - gamma) s, below s, then noise from s' to s. gamma = 0 is DDIM, gamma = 1 is `consistency`.
"""

from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, level, toward
from langevin.solvers.edm import rise


@dataclass(frozen=True)
class TCD(Solver[Nothing]):
    """For models whose answer is where the flow ends; gamma in [0, 1], a share of the process's own time."""

    few_step = True
    of_ratio = False

    gamma: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], not {self.gamma}")

    @property
    def stochastic(self) -> bool:
        return self.gamma > 0

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
        if self.gamma == 0 or to.sigma == 0:
            return toward(x_t, x0_hat, at, to), state
        below = level(denoiser.process.schedule, (1 - self.gamma) * to.t)
        return rise(toward(x_t, x0_hat, at, below), below, to, noise), state

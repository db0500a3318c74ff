"""DDIM: Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021, eq. 12 and 16.

    x_s = alpha_s x0_hat + sqrt(sigma_s^2 - d^2) z_hat + d eps,  d = eta * std of q(x_s | x_t, x0)

eta = 0 is deterministic, eta = 1 is ancestral sampling.
"""

from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, split, toward


@dataclass(frozen=True)
class DDIM(Solver[Nothing]):
    """First order; eta in [0, 1]."""

    variants = ({}, {"eta": 0.5}, {"eta": 1.0})

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

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
        down, up = split(at, to, self.eta)
        x_s = toward(x_t, denoiser(x_t, at.t, cond).mean, at, down)
        return (x_s.add_(noise(x_t), alpha=up) if up > 0 else x_s), state

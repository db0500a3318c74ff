"""DDIM: Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021, eq. 12 and 16.

    x_s = alpha_s x0_hat + sqrt(sigma_s^2 - d^2) z_hat + d eps,  d = eta * std of q(x_s | x_t, x0)

eta = 0 is deterministic, eta = 1 is ancestral sampling.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, toward


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
        x0_hat = denoiser(x_t, at.t, cond).mean
        if self.eta == 0 or to.sigma == 0:
            return toward(x_t, x0_hat, at, to), state
        # share of sigma_s^2 that is fresh: eta^2 (1 - snr_t / snr_s)
        fresh = -(self.eta**2) * math.expm1(2 * (at.lam - to.lam))
        x_s = toward(x_t, x0_hat, at, to._replace(sigma=to.sigma * math.sqrt(1 - fresh)))
        return x_s.add_(noise(x_t), alpha=to.sigma * math.sqrt(fresh)), state

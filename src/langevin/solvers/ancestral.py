"""Ancestral sampling: x_s drawn from q(x_s | x_t, x0) with the denoiser's x0 (Ho et al. 2020, algorithm 2).

"posterior"   the variance that the denoiser's own posterior implies: beta_tilde where it is a point mass (DDPM's fixed
              small), learned where it is learned (Improved DDPM), exact where var[x0 | x_t] is known
"small"       beta_tilde always: the variance given x0
"large"       the variance for data of unit variance: DDPM's beta where alpha^2 + sigma^2 = 1

Tokens are drawn in every step, the last one too, each by itself from the reverse of its process (Austin et al. 2021, D3PM).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.posterior import Gaussian
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver


@dataclass(frozen=True)
class Ancestral(Solver[Nothing]):
    """First order; draws noise in every step but one that ends at sigma = 0."""

    variants = ({}, {"variance": "small"}, {"variance": "large"})

    variance: Literal["posterior", "small", "large"] = "posterior"

    def __post_init__(self) -> None:
        if self.variance not in ("posterior", "small", "large"):
            raise ValueError(f"variance must be posterior, small or large, not {self.variance!r}")

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
        process, q = denoiser.process, denoiser(x_t, at.t, cond)
        if self.variance == "small":
            q = Gaussian(q.mean)
        elif self.variance == "large":
            share = at.sigma**2 / (at.alpha**2 + at.sigma**2)
            q = Gaussian(q.mean, torch.full_like(x_t, share))
        step = process.reverse(q, x_t, at.t, to.t)
        if to.sigma == 0 and isinstance(step, Gaussian):  # the end: the mean, as every DDPM does
            return step.mean, state
        return step.sample(noise), state

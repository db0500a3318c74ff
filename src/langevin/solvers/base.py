"""A solver takes x from time t to time s < t. It is an immutable value; what it remembers lies in its state.

Solvers compute with alpha, sigma and lam = log(alpha / sigma) in float64 on the CPU: times are CPU numbers, so that no step
waits for an accelerator. Every formula is written so that alpha_t = 0 and sigma_s = 0 are finite.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise

S = TypeVar("S")


class Solver(ABC, Generic[S]):
    """A frozen dataclass in a file of its own.

    Attributes:
        order: global order of convergence on a smooth deterministic problem (strong order for stochastic ones).
        evaluations: calls of the denoiser a step.
        stochastic: whether steps draw noise.
        variants: settings that differ in what they do; each is measured by the tests and by `langevin check`.
    """

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    @property
    def stochastic(self) -> bool:
        """Whether steps draw noise."""
        return False

    @abstractmethod
    def init(self, x_t: Tensor) -> S:
        """The state before the first step."""

    @abstractmethod
    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: S,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, S]:
        """(x_s, state) from x_t (B, ...); t, s: () float64 on the CPU, s < t."""


class Level(NamedTuple):
    """alpha, sigma and lam = log(alpha / sigma) at a time, () float64 each."""

    alpha: Tensor
    sigma: Tensor
    lam: Tensor


def level(denoiser: Denoiser, t: Tensor) -> Level:
    """The noise level at t."""
    schedule = denoiser.process.schedule
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return Level(alpha, sigma, alpha.log() - sigma.log())


def toward(x_t: Tensor, x0_hat: Tensor, at: Level, to: Level) -> Tensor:
    """alpha_s x0_hat + sigma_s z_hat with z_hat = (x_t - alpha_t x0_hat) / sigma_t: DDIM's step (Song et al. 2021, eq. 12)."""
    keep = to.sigma / at.sigma
    return combine(keep, x_t, to.alpha - keep * at.alpha, x0_hat)


def combine(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """a x + b y for () float64 numbers a, b on the CPU: one new tensor, one pass more."""
    return torch.add(x * a.item(), y, alpha=b.item())


@dataclass(frozen=True)
class Nothing:
    """The state of a solver that remembers nothing."""

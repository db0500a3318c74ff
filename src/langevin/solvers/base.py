"""A solver takes x from time t to time s < t. It is an immutable value; what it remembers lies in its state.

Solvers compute with alpha, sigma and lam = log(alpha / sigma), plain numbers found for all times before the first step, so
that no step waits for an accelerator or spends its time on small tensors. Every formula is written so that alpha_t = 0 and
sigma_s = 0 are finite.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.schedules.base import Schedule
from langevin.rng import Noise

S = TypeVar("S")


class Level(NamedTuple):
    """A time and its noise level."""

    t: Tensor
    """() float64 on the CPU, as denoisers take it."""
    alpha: float
    sigma: float
    lam: float
    """log(alpha / sigma); -inf where alpha is 0, inf where sigma is 0."""


def levels(schedule: Schedule, times: Tensor) -> list[Level]:
    """The noise levels at times (N,) float64 on the CPU."""
    lam = 0.5 * schedule.log_snr(times)
    numbers = (schedule.alpha(times).tolist(), schedule.sigma(times).tolist(), lam.tolist())
    return [Level(*row) for row in zip(times.unbind(), *numbers, strict=True)]


def level(schedule: Schedule, t: Tensor) -> Level:
    """The noise level at t, () float64 on the CPU."""
    return levels(schedule, t[None])[0]


def level_at(schedule: Schedule, lam: float) -> Level:
    """The noise level at which log(alpha / sigma) is lam."""
    return level(schedule, schedule.inverse(torch.tensor(2 * lam, dtype=torch.float64)))


class Solver(ABC, Generic[S]):
    """A frozen dataclass in a file of its own.

    Attributes:
        order: global order of convergence on a smooth problem: of the end, or of the law of stochastic ones.
        evaluations: calls of the denoiser a step; 0 where they are not the same in every step.
        adaptive: whether steps read numbers back and divide themselves until a tolerance is met; accuracy then follows the
            tolerance, not the number of steps.
        few_step: whether it is for models that answer with the end of the flow (consistency models) instead of the mean of
            x0: with those its law is right, with a denoiser it is not, however many the steps.
        of_ratio: whether sigma / alpha alone decides what it does, not the process's own time.
        stochastic: whether steps draw noise.
        variants: settings that differ in what they do; each is measured by the tests and by `langevin check`.
    """

    order: int = 1
    evaluations: int = 1
    adaptive: ClassVar[bool] = False
    few_step: ClassVar[bool] = False
    of_ratio: ClassVar[bool] = True
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
        at: Level,
        to: Level,
        state: S,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, S]:
        """(x_s, state) from x_t (B, ...) at noise level `at` to `to`; a later time than `at` is inversion."""


def toward(x_t: Tensor, x0_hat: Tensor, at: Level, to: Level) -> Tensor:
    """alpha_s x0_hat + sigma_s z_hat with z_hat = (x_t - alpha_t x0_hat) / sigma_t: DDIM's step (Song et al. 2021, eq. 12)."""
    keep = to.sigma / at.sigma
    return combine(keep, x_t, to.alpha - keep * at.alpha, x0_hat)


def split(at: Level, to: Level, eta: float) -> tuple[Level, float]:
    """(down, up): a step to the less noisy `down`, then fresh noise of standard deviation `up`, ends at the level `to`.

    up = eta times the standard deviation of q(x_s | x_t, x0), at most sigma_s: Song et al. 2021, eq. 16. `down` has no time.
    """
    if eta == 0 or to.sigma == 0:
        return to, 0.0
    # share of sigma_s^2 that is fresh: eta^2 (1 - snr_t / snr_s)
    fresh = min(-(eta**2) * math.expm1(2 * (at.lam - to.lam)), 1.0)
    lam = to.lam - 0.5 * math.log1p(-fresh) if fresh < 1 else math.inf
    return to._replace(sigma=to.sigma * math.sqrt(1 - fresh), lam=lam), to.sigma * math.sqrt(fresh)


def combine(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """a x + b y: one new tensor, one pass more."""
    return (x * a).add_(y, alpha=b)


@dataclass(frozen=True)
class Nothing:
    """The state of a solver that remembers nothing."""

"""Solvers that choose their steps by an estimate of their error, within each step of the grid.

They solve  dy/dlam = x0_hat(alpha y, t) - y,  y = x / alpha,  from lam_t to lam_s with a high and a low order at once:

    error  = rms over a sample of (high - low) / max(atol, rtol max(|low|, |low before|))
    factor = 1 + atan(error^(-1/order) - 1);   h <- h factor;   the step is taken where factor >= 0.81

which is k-diffusion's rule (Crowson), except that there one error is taken over the whole batch. Here every sample has its own
steps and its own time: sample k does not depend on the others, and a batch takes as many calls as its slowest sample.

Where lam has no value, at alpha = 0 or sigma = 0, one step of DDIM reaches sigma / alpha = 1000, or leaves it at 0.002.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.shapes import expand_like
from langevin.errors import DivergedError
from langevin.rng import Noise
from langevin.solvers.base import Level, Solver, level_at, toward

Slope = Callable[[Tensor, Tensor], Tensor]
"""(lam (B,) float64 on the CPU, y (B, ...)) -> dy / dlam (B, ...)"""
LAM_MIN, LAM_MAX = -math.log(1000.0), -math.log(0.002)
SAFETY, SMALLEST = 0.81, 1e-7


@dataclass(frozen=True)
class Pace:
    """The next step in lam of each sample, (B,) > 0; None before the first."""

    h: Tensor | None = None


@dataclass(frozen=True)
class Adaptive(Solver[Pace]):
    """Accuracy follows the tolerances; the grid only says where to stop on the way.

    Attributes:
        rtol, atol: tolerance of a step, relative and absolute, of x / alpha.
        first: length in lam of the first step that is tried.
    """

    adaptive = True
    evaluations = 0
    control: ClassVar[float]
    """The power of h with which the error estimate falls."""

    rtol: float = 0.05
    atol: float = 0.0078
    first: float = 0.05

    def __post_init__(self) -> None:
        if not (0 < self.rtol < math.inf and 0 < self.atol < math.inf and 0 < self.first < math.inf):
            raise ValueError("rtol, atol and first must be finite and above 0")

    @abstractmethod
    def attempt(
        self, slope: Slope, lam: Tensor, y: Tensor, k: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(high, low, the slope there if it was computed) after steps h (B,) in lam from y (B, ...), whose slope is k."""

    def init(self, x_t: Tensor) -> Pace:
        return Pace()

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        at: Level,
        to: Level,
        state: Pace,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, Pace]:
        begin, end = (
            level_at(denoiser.process.schedule, LAM_MIN if here.lam < 0 else LAM_MAX) if math.isinf(here.lam) else here
            for here in (at, to)
        )
        forward = math.copysign(1.0, to.lam - at.lam)
        if forward * (end.lam - begin.lam) <= 0:
            return toward(x_t, denoiser(x_t, at.t, cond).mean, at, to), state
        if begin is not at:
            x_t = toward(x_t, denoiser(x_t, at.t, cond).mean, at, begin)
        y, state = self._solve(denoiser, x_t / begin.alpha, begin.lam, end.lam, state, cond)
        x = y * end.alpha
        return (x if end is to else toward(x, denoiser(x, end.t, cond).mean, end, to)), state

    def _solve(
        self, denoiser: Denoiser, y: Tensor, begin: float, end: float, state: Pace, cond: Condition | None
    ) -> tuple[Tensor, Pace]:
        """y (B, ...) at lam = end from y at lam = begin."""
        schedule = denoiser.process.schedule

        def slope(lam: Tensor, y: Tensor) -> Tensor:
            t = schedule.inverse(2 * lam).clamp(0, 1)
            x0_hat: Tensor = denoiser(expand_like(schedule.alpha(t), y) * y, t.to(y.device), cond).mean
            return x0_hat - y

        sign = math.copysign(1.0, end - begin)
        lam = torch.full((len(y),), begin, dtype=torch.float64)
        h = torch.full_like(lam, self.first) if state.h is None else state.h
        before, k = y, None
        while bool((running := lam != end).any()):
            left = sign * (end - lam)
            is_last = left <= h
            tried = torch.where(is_last, left, h)
            k = slope(lam, y) if k is None else k
            high, low, k_next = self.attempt(slope, lam, y, k, sign * tried)
            size = torch.maximum(low.abs(), before.abs()).mul_(self.rtol).clamp_(min=self.atol)
            error = ((high - low) / size).flatten(1).square().mean(1).sqrt().double().cpu()
            factor = 1 + torch.atan((error + 1e-8).pow(-1 / self.control) - 1)
            factor = torch.where(error.isfinite(), factor, 0.2)
            taken = running & (factor >= SAFETY)
            if bool((running & ~taken & (tried < SMALLEST)).any()):
                raise DivergedError(
                    "an adaptive solver found no step small enough", help="is the model's answer finite?"
                )
            lam = torch.where(taken, torch.where(is_last, end, lam + sign * tried), lam)
            # a step cut short by the end says little of how long the next may be
            longer = torch.where(is_last & taken, torch.maximum(h, tried * factor), tried * factor)
            h = torch.where(running, longer, h)
            moved = taken.to(y.device).reshape(-1, *(1,) * (y.ndim - 1))
            y, before = torch.where(moved, high, y), torch.where(moved, low, before)
            k = None if k_next is None else torch.where(moved, k_next, k)
        return y, Pace(h)

"""Adams-Bashforth in the angle of the noise, on a scale that is finite at both ends.

With theta = atan(r), r = sigma / alpha, the probability flow of y = x / sqrt(alpha^2 + sigma^2) is

    dy / dtheta = v_hat = cos(theta) eps_hat - sin(theta) x0_hat

Gaussian data of unit variance stand still (v_hat = 0), so that only what the data have of their own is approximated: v_hat is
the polynomial through its last `order` values in

    psi = log((r + low) / (1 + r / high))

which is log r between the scales low and high, linear in r below and in 1 / r above. That is how v_hat behaves: smooth data
make it odd in r near r = 0, and a series in 1 / r where noise drowns them. So a step from alpha = 0 is like any other, and one
needs no care for how far down or up it reaches. The integral over a step is sum_j w_j v_j,

    w_j = integral of L_j(psi) dtheta,   dtheta / dpsi = e^psi (1 - low / high) / ((1 - e^psi / high)^2 + (e^psi - low)^2)

The first step has one answer. So that its error does not stay, each answer first corrects the step that led to it, as long
as there are fewer than `order`. The step to sigma = 0 is not taken in theta: x0_hat is even in r there, so that the last two
answers give, to fourth order in r,

    x_0 = x0_hat_t + (x0_hat_t - x0_hat_before) / ((r_before / r_t)^2 - 1)
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Solver, combine
from langevin.solvers.grids import stretched
from langevin.solvers.multistep import PANEL, RULE


class Answer(NamedTuple):
    """What the denoiser said at an earlier point: v = unit * value, which saves a pass."""

    psi: float
    over: float
    """alpha / sigma"""
    unit: float
    value: Tensor
    x0_hat: Tensor


@dataclass(frozen=True)
class Angle(Solver[tuple[Answer, ...]]):
    """One evaluation a step; what is used where no solver is named, on the grid `scales`.

    Args:
        order: how many answers a step combines; the first steps have fewer.
        low, high: the scales of the data, in units of their standard deviation: 0 < low < high.
    """

    order: int = 4
    low: float = 0.2
    high: float = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 8:
            raise ValueError(f"order must lie in 1 to 8, not {self.order}")
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(f"scales must be 0 < low < high, not {self.low} and {self.high}")

    def init(self, x_t: Tensor) -> tuple[Answer, ...]:
        return ()

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        at: Level,
        to: Level,
        state: tuple[Answer, ...],
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, tuple[Answer, ...]]:
        x0_hat = denoiser(x_t, at.t, cond).mean
        size = math.hypot(at.alpha, at.sigma)
        value = torch.add(x0_hat, x_t, alpha=-at.alpha / size**2)
        now = Answer(self._psi(at), at.alpha / at.sigma, -size / at.sigma, value, x0_hat)
        past = (now, *state)[: max(self.order, 2)]
        if to.sigma == 0:
            return self._last(past), past
        used, scale = past[: self.order], math.hypot(to.alpha, to.sigma)
        x_s = x_t * (scale / size)
        weights = _weights(self, tuple([a.psi for a in used]), self._psi(to))
        for weight, answer in zip(weights, used, strict=True):
            x_s.add_(answer.value, alpha=scale * weight * answer.unit)
        return x_s, past

    def _psi(self, at: Level) -> float:
        return math.log(stretched(at.alpha, at.sigma, self.low, self.high))

    def _last(self, past: tuple[Answer, ...]) -> Tensor:
        if self.order == 1 or len(past) == 1:
            return past[0].x0_hat
        now, before = past[:2]
        share = before.over**2 / (now.over**2 - before.over**2)
        # as a difference, so that entries on which both answers agree come back bit for bit
        return combine(1, now.x0_hat, share, now.x0_hat - before.x0_hat)


@lru_cache(4096)
def _weights(solver: Angle, nodes: tuple[float, ...], to: float) -> tuple[float, ...]:
    """How y moves from nodes[0] to `to`, in psi, by each answer."""
    total = _integrals(solver, nodes, nodes[0], to)
    if 2 <= len(nodes) < solver.order:  # starting: the last step once more, with the newest answer in place of none
        now, then = _integrals(solver, nodes, nodes[1], nodes[0]), _integrals(solver, nodes[1:], nodes[1], nodes[0])
        total = tuple(a + b - c for a, b, c in zip(total, now, (0.0, *then), strict=True))
    return total


def _integrals(solver: Angle, nodes: tuple[float, ...], start: float, end: float) -> tuple[float, ...]:
    """w_j of the integral from psi = start to end."""
    low, high = solver.low, solver.high
    panels = max(1, math.ceil(abs(end - start) / PANEL))
    half = (end - start) / (2 * panels)
    psis = [start + half * (2 * panel + 1 + node) for panel in range(panels) for node, _ in RULE]
    es = [math.exp(psi) for psi in psis]
    rates = [e * (1 - low / high) / ((1 - e / high) ** 2 + (e - low) ** 2) for e in es]
    masses = [half * weight * rate for rate, (_, weight) in zip(rates, RULE * panels, strict=True)]
    found = []
    for j, node in enumerate(nodes):
        others = nodes[:j] + nodes[j + 1 :]
        whole = math.prod(node - other for other in others)
        basis = [math.prod([psi - other for other in others]) for psi in psis]
        found.append(sum(m * b for m, b in zip(masses, basis, strict=True)) / whole)
    return tuple(found)

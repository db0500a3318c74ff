"""Exponential Runge-Kutta steps: Lu et al. 2022, "DPM-Solver" (noise) and "DPM-Solver++" (x0), as one mechanism.

Every stage is DDIM's step from t, by k in lam, with a blend of answers m in place of the first one:

    m_0 + c (m_i - m_0),   c = w(k) k / k_i,   m_i found k_i = r_i h after t

    x0      m = x0_hat                            w(k) = 1 / (1 - e^-k) - 1 / k
    noise   m = (x - alpha x0_hat) / sigma        w(k) = 1 / k - 1 / (e^k - 1), which is that of x0 at -k

w is exact where m is linear in lam; it tends to 1/2 as k -> 0, and methods of two stages take 1/2 itself, as the papers do.

With eta > 0 the step goes to a lower level, and fresh noise comes on top: exact in law where the step is (Karras's and
Crowson's "ancestral" forms). eta = 1 adds as much as ancestral sampling does.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, combine, level_at, split, toward

Answer = Literal["x0", "noise"]


def weight(k: float) -> float:
    """1 / (1 - e^-k) - 1 / k; by its series where that cancels."""
    return 0.5 + k / 12 - k**3 / 720 if abs(k) < 1e-2 else -1 / math.expm1(-k) - 1 / k


def advance(
    denoiser: Denoiser,
    x_t: Tensor,
    at: Level,
    to: Level,
    cond: Condition | None,
    *,
    answer: Answer,
    nodes: Sequence[float],
) -> Tensor:
    """x_s by stages that end at the nodes r_i in (0, 1], at most two, and at s; DDIM's where lam has no value at an end."""
    x0_hat = denoiser(x_t, at.t, cond).mean
    h = to.lam - at.lam
    if not math.isfinite(h):
        return toward(x_t, x0_hat, at, to)

    def read(x: Tensor, x0: Tensor, here: Level) -> Tensor:
        return x0 if answer == "x0" else combine(1 / here.sigma, x, -here.alpha / here.sigma, x0)

    def move(m: Tensor, there: Level) -> Tensor:
        if answer == "x0":
            return toward(x_t, m, at, there)
        keep = there.alpha / at.alpha
        return combine(keep, x_t, there.sigma - keep * at.sigma, m)

    m_0 = blend = read(x_t, x0_hat, at)
    for i, r in enumerate(nodes):
        there = level_at(denoiser.process.schedule, at.lam + r * h)
        x = move(blend, there)
        m = read(x, denoiser(x, there.t, cond).mean, there)
        ahead = (*nodes, 1.0)[i + 1]  # the next stage ends at the next node, or at s
        k = ahead * h
        w = 0.5 if len(nodes) == 1 else weight(k if answer == "x0" else -k)
        c = w * ahead / r
        blend = m if c == 1 else combine(1 - c, m_0, c, m)
    return move(blend, to)


@dataclass(frozen=True)
class SingleStep(Solver[Nothing]):
    """An exponential Runge-Kutta method, deterministic or with fresh noise; remembers nothing.

    Attributes:
        eta: fresh noise in each step, in units of ancestral sampling's, >= 0.
        s_noise: scale of that noise; 1 is right.
    """

    eta: float = 0.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.eta < math.inf and 0 <= self.s_noise < math.inf):
            raise ValueError(f"eta and s_noise must be finite and not negative, not {self.eta} and {self.s_noise}")

    @property
    @abstractmethod
    def nodes(self) -> tuple[float, ...]:
        """Where the stages end, in shares of the step in lam."""

    @property
    def answer(self) -> Answer:
        """What is taken for linear in lam."""
        return "x0"

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
        x_s = advance(denoiser, x_t, at, down, cond, answer=self.answer, nodes=self.nodes)
        return (x_s.add_(noise(x_t), alpha=up * self.s_noise) if up > 0 else x_s), state

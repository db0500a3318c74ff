"""What all multistep solvers share: a step adds weighted earlier answers of the denoiser.

The probability flow is an integral, exactly, in each of these spaces (lam = log(alpha / sigma), theta = atan(sigma / alpha)):

    y_s = y_t + integral from t to s of m dmu,   y = x / scale

    space   scale                   m                                            mu
    x0      sigma                   x0_hat                                       e^lam
    eps     alpha                   eps_hat = (x - alpha x0_hat) / sigma         e^-lam
    flow    alpha + sigma           eps_hat - x0_hat                             sigma / (alpha + sigma)
    v       sqrt(alpha^2 + sigma^2) v_hat = cos(theta) eps_hat - sin(theta) x0_hat   theta

With the polynomial in a variable u through the last values of m, the integral is sum_j c_j m_j:

    c_j = integral from t to s of L_j(u) dmu,   L_j(u) = product over i != j of (u - u_i) / (u_j - u_i)

These are the Adams methods of those spaces: with u = mu the classical ones, with u = lam exponential integrators. One value
alone gives DDIM in the first three. All that is done with answers is such a sum, so that a corrector needs none of its own:
once the answer at the end of a step is there, the step is integrated again with it, and what changes is added to the next:

    y_s = y_t + sum_j predictor_j m_j + sum_j (corrector_j - predictor_before_j) m_j

The steps at the start, which have few answers, can be corrected in the same way at no cost: three answers give third order so.

In x0 space the same holds for the diffusions with the right law at every time (Lu et al. 2022, section 5; Xue et al. 2023,
proposition 4.2), from the probability flow, eta = 0, to the reverse of the forward process, eta = 1, and beyond:

    scale = sigma e^(-eta lam),  mu = e^((1 + eta) lam),  x_s += sigma_s sqrt(1 - e^(-2 eta h)) z,   h = lam_s - lam_t

Where alpha_t = 0 or sigma_s = 0, lam has no value: such a step is of first order, and is not remembered.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.schedules.base import Schedule
from langevin.rng import Noise
from langevin.solvers.base import Level, Solver, toward

Predict = Literal["x0", "eps", "flow", "v"]
Variable = Literal["lam", "mu", "index", "t"]
Pair = Literal["exact", "bh1", "bh2"]
Correct = Literal["never", "start", "always"]
Lams = tuple[float, ...]
"""lam of remembered answers, newest first."""
Weights = tuple[float, ...]
"""One for each of them."""
MOST = 6
"""Terms beyond which weights of either sign grow too large to be of use."""


class Space(NamedTuple):
    """A row of the table."""

    scale: Callable[[Level], float]
    of_x: Callable[[Level], float]
    """m = of_x x + of_x0 x0_hat"""
    of_x0: Callable[[Level], float]
    mu: Callable[[float], float]
    rate: Callable[[float], float]
    """mu and dmu / dlam, of lam"""


@lru_cache
def space(predict: Predict, eta: float = 0.0) -> Space:
    """The row with that name; eta belongs to x0 alone."""
    if predict == "x0":
        return Space(
            scale=lambda a: a.sigma * math.exp(-eta * a.lam),
            of_x=lambda a: 0.0,
            of_x0=lambda a: 1.0,
            mu=lambda lam: math.exp((1 + eta) * lam),
            rate=lambda lam: (1 + eta) * math.exp((1 + eta) * lam),
        )
    if predict == "eps":
        return Space(
            scale=lambda a: a.alpha,
            of_x=lambda a: 1 / a.sigma,
            of_x0=lambda a: -a.alpha / a.sigma,
            mu=lambda lam: math.exp(-lam),
            rate=lambda lam: -math.exp(-lam),
        )
    if predict == "flow":
        return Space(
            scale=lambda a: a.alpha + a.sigma,
            of_x=lambda a: 1 / a.sigma,
            of_x0=lambda a: -(a.alpha + a.sigma) / a.sigma,
            mu=lambda lam: 1 / (1 + math.exp(lam)),
            rate=lambda lam: -0.25 / math.cosh(lam / 2) ** 2,
        )
    return Space(
        scale=lambda a: math.hypot(a.alpha, a.sigma),
        of_x=lambda a: a.alpha / (a.sigma * math.hypot(a.alpha, a.sigma)),
        of_x0=lambda a: -math.hypot(a.alpha, a.sigma) / a.sigma,
        mu=lambda lam: math.atan(math.exp(-lam)),
        rate=lambda lam: -0.5 / math.cosh(lam),
    )


class Past(NamedTuple):
    """An answer of the denoiser and where it was given: m = unit * value."""

    lam: float
    unit: float
    value: Tensor


History = tuple[Past, ...]
"""Newest first."""


class Multistep(Solver[History]):
    """One evaluation a step. The solvers of this kind differ in these values alone.

    Attributes:
        terms: how many answers the predictor combines, where there are as many.
        predict: the space.
        variable: what the weights interpolate in: lam, mu, t, or "index", which takes all steps for equal ones in mu.
        pair: the weights of two answers: the integral of the line ("exact"), or the half difference of Zhao et al. 2023,
            slope * B h / 2 with B = h ("bh1") or the integral of dmu ("bh2") in place of it.
        correct: which steps are integrated again with the answer at their end: none; "start", those whose few answers would
            cost the method its order (the first `terms - 1` of three terms or more, without noise); or all, which raises
            the order by one.
        corrector: how many answers the corrector combines, with correct = "always"; None: one more than `terms`.
        eta: how much noise is drawn, x0 space alone.
        noisy: in steps that start at a sigma / alpha between these two.

    Raises:
        ValueError: a value that cannot be.
    """

    predict: Predict = "x0"
    variable: Variable = "lam"
    pair: Pair = "exact"
    correct: Correct = "start"
    corrector: int | None = None
    eta: float = 0.0
    noisy: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        for name, kind in (("predict", Predict), ("variable", Variable), ("pair", Pair), ("correct", Correct)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        for terms in (self.terms, self.corrector or 1):
            if not 1 <= terms <= MOST:
                raise ValueError(f"a step combines 1 to {MOST} answers, not {terms}")
        if not 0 <= self.eta < math.inf or (self.eta and self.predict != "x0"):
            raise ValueError(f"eta must be at least 0, and 0 outside x0 space, not {self.eta}")

    @property
    @abstractmethod
    def terms(self) -> int:
        """1 to 6."""

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def init(self, x_t: Tensor) -> History:
        return ()

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        at: Level,
        to: Level,
        state: History,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, History]:
        x0_hat = denoiser(x_t, at.t, cond).mean
        eta = _eta(self, at.lam)
        row = space(self.predict, eta)
        memory = _memory(self)
        past: History = ()
        if math.isfinite(at.lam):
            unit = row.of_x0(at)
            value = x0_hat if self.predict == "x0" else torch.add(x0_hat, x_t, alpha=row.of_x(at) / unit)
            past = (Past(at.lam, unit, value), *state)[:memory]
        decay = eta * (at.lam - to.lam) if eta else 0.0
        if not past or memory == 1 or not math.isfinite(to.lam):
            x_s = toward(x_t, x0_hat, at, to._replace(sigma=to.sigma * math.exp(decay)))
        else:
            clock = denoiser.process.schedule if self.variable == "t" else None
            scale = row.scale(to)
            x_s = x_t * (scale / row.scale(at))
            for weight, before in zip(_weights(self, tuple([p.lam for p in past]), to.lam, clock), past, strict=False):
                x_s.add_(before.value, alpha=scale * weight * before.unit)
        if decay and to.sigma > 0:
            x_s.add_(noise(x_t), alpha=to.sigma * math.sqrt(-math.expm1(2 * decay)))
        return x_s, past


def _eta(solver: Multistep, lam: float) -> float:
    """eta in a step from lam."""
    if solver.eta == 0 or not solver.noisy[0] <= math.exp(-lam) <= solver.noisy[1]:
        return 0.0
    return solver.eta


def _starts(solver: Multistep) -> bool:
    """Whether the first steps are corrected."""
    return solver.correct == "start" and solver.terms > 2 and solver.eta == 0


def _corrector_terms(solver: Multistep) -> int:
    """How many answers the corrector of every step combines; 0: there is none."""
    if solver.correct != "always":
        return 0
    return solver.terms + 1 if solver.corrector is None else solver.corrector


def _memory(solver: Multistep) -> int:
    """How many answers are remembered: a correction needs all that the step before was made of."""
    always = _corrector_terms(solver)
    return max(solver.terms + (always > 0 or _starts(solver)), always)


@lru_cache(4096)
def _weights(solver: Multistep, lams: Lams, to: float, clock: Schedule | None) -> Weights:
    """What each remembered answer adds to y from lams[0] to `to`."""

    def weights(lams: Lams, start: float, end: float) -> Weights:
        row = space(solver.predict, _eta(solver, start))
        if len(lams) == 2 and solver.pair != "exact":
            return _half_difference(row, solver.pair, lams, start, end)
        return integrals(row, solver.variable, lams, start, end, clock)

    total = [*weights(lams[: solver.terms], lams[0], to)]
    terms = len(lams) if _starts(solver) and len(lams) <= solver.terms else _corrector_terms(solver)
    if terms and len(lams) > 1:
        total += [0.0] * (max(terms, solver.terms + 1) - len(total))
        # the last y was one of the eta of its step: y = x e^(eta lam) / sigma
        same = math.exp((_eta(solver, lams[0]) - _eta(solver, lams[1])) * lams[0])
        for j, weight in enumerate(weights(lams[:terms], lams[1], lams[0])):
            total[j] += same * weight
        for j, weight in enumerate(weights(lams[1 : 1 + solver.terms], lams[1], lams[0]), 1):
            total[j] -= same * weight
    return tuple(total)


def _half_difference(row: Space, pair: Pair, lams: Lams, start: float, end: float) -> Weights:
    whole = row.mu(end) - row.mu(start)
    B = whole if pair == "bh2" else row.rate(end) * (end - start)
    half = B / 2 * (end - start) / (lams[0] - lams[1])
    return (whole + half, -half) if start == lams[0] else (half, whole - half)


def _gauss_legendre(num: int) -> list[tuple[float, float]]:
    """(node, weight) on [-1, 1] by eigenvalues and vectors (Golub & Welsch 1969)."""
    k = torch.arange(1, num, dtype=torch.float64)
    beside = k / torch.sqrt(4 * k * k - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return list(zip(nodes.tolist(), (2 * vectors[0].square()).tolist(), strict=True))


RULE, PANEL = _gauss_legendre(12), 1.5
"""Twelve nodes for each 1.5 of lam are exact to rounding: no rate has a pole within pi / 2 of the real line."""


@lru_cache(4096)
def integrals(
    row: Space, variable: Variable, nodes: Lams, start: float, end: float, clock: Schedule | None = None
) -> Weights:
    """c_j = integral of L_j(u) dmu from lam = start to end, for the polynomial through values at the lams `nodes`.

    For "index", start must be the first node or the second; for "t", `clock` says which time has which lam.
    """
    panels = max(1, math.ceil(abs(end - start) / PANEL))
    half = (end - start) / (2 * panels)
    lams = [start + half * (2 * p + 1 + node) for p in range(panels) for node, _ in RULE]
    us, known = lams, list(nodes)
    if variable == "mu":
        us, known = [row.mu(lam) for lam in lams], [row.mu(lam) for lam in nodes]
    elif variable == "index":
        first, whole = row.mu(start), row.mu(end) - row.mu(start)
        us = [(row.mu(lam) - first) / whole - (start != nodes[0]) for lam in lams]
        known = [-float(j) for j in range(len(nodes))]
    elif variable == "t":
        assert clock is not None
        times = clock.inverse(2 * torch.tensor([*lams, *nodes], dtype=torch.float64)).tolist()
        us, known = times[: len(lams)], times[len(lams) :]
    masses = [half * weight * row.rate(lam) for lam, (_, weight) in zip(lams, RULE * panels, strict=True)]
    found = []
    for j, u_j in enumerate(known):
        others = known[:j] + known[j + 1 :]
        total = sum(mass * math.prod([u - u_i for u_i in others]) for u, mass in zip(us, masses, strict=True))
        found.append(total / math.prod([u_j - u_i for u_i in others]))
    return tuple(found)

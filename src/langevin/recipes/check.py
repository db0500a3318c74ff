"""`langevin check`: the mathematics and every solver, measured on this machine against closed forms."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from langevin.diffusion import MaskedDiffusion, UniformDiffusion
from langevin.diffusion.schedules import VE, Flow, Tabulated, VPLinear
from langevin.exact import CategoricalDenoiser, identities, oracles, token_oracles
from langevin.recipes import guidance_oracles, solver_oracles
from langevin.solvers import Solver
from langevin.solvers.grids import Karras
from langevin.training import ema

Reading = tuple[str, float, float, float]
"""Name, expected, found, tolerance."""


@dataclass(frozen=True)
class Check:
    """One figure beside what it must be.

    Attributes:
        name: what was measured.
        oracle: where the expected figure comes from.
        expected, found, tolerance: it is right where |found - expected| <= tolerance.
        ok: whether it is; never where `found` is not a number.
        seconds: what measuring it took.
        error: what went wrong, where there is no figure.
    """

    name: str
    oracle: str
    expected: float
    found: float
    tolerance: float
    ok: bool
    seconds: float
    error: str = ""


def _identities() -> Iterator[Reading]:
    every = oracles.schedules()
    preserving = [s for s in every.values() if abs(s.alpha(_HALF) ** 2 + s.sigma(_HALF) ** 2 - 1) < 1e-9]
    yield "Tweedie: mean and variance from the score", 0, max(map(identities.tweedie, every.values())), 1e-8
    trips = (identities.round_trip(p, s) for p in identities.MEANINGS for s in every.values())
    yield "eps, x0, v, score, flow, Karras and back", 0, max(trips), 1e-12
    losses = (
        identities.named_loss(p, s)
        for p in identities.LOSSES
        for s in (preserving if type(p).__name__ == "V" else every.values())
    )
    yield "each named loss is a weight on the error of x0", 0, max(losses), 1e-12
    for ratio in (0.01, 0.5, 10.0):
        loss, variance = identities.karras_variances(VE(), ratio)
        yield f"Karras, sigma {ratio:g}: loss of a zero network", 1, loss, 1e-12
        yield f"Karras, sigma {ratio:g}: variance of its target", 1, variance, 1e-12
    yield "the chain of steps is the closed form", 0, max(map(identities.chain, every.values())), 1e-12


_HALF = torch.tensor(0.5, dtype=torch.float64)


def _tables() -> Iterator[Reading]:
    for name, table, low, high, keep in (
        ("Stable Diffusion", Tabulated.scaled_linear(), 0.029167, 14.614641, 4.660e-3),
        ("DDPM", Tabulated.linear(), 0.0100005, 157.407281, 4.0358e-5),
    ):
        t = torch.tensor([1 / table.T, 1.0], dtype=torch.float64)
        ratio = torch.exp(-0.5 * table.log_snr(t))
        yield f"{name}: first sigma / alpha", low, ratio[0].item(), 1e-6
        yield f"{name}: last sigma / alpha", high, ratio[1].item(), 1e-6
        yield f"{name}: last alpha^2", keep, table.alpha(t[1]).square().item(), 1e-4 * keep
    ratios = VE().sigma(Karras()(VE(), 18))
    for i, expected in ((0, 80.0), (1, 57.586), (2, 40.786), (16, 0.00753), (17, 0.002)):
        yield f"Karras's grid of 18, sigma {i}", expected, ratios[i].item(), 1e-3 * expected
    t = torch.linspace(0, 1, 999, dtype=torch.float64)[1:-1]
    worst = max((s.inverse(s.log_snr(t)) - t).abs().max().item() for s in oracles.schedules().values())
    yield "every schedule: inverse(log_snr(t)) = t", 0, worst, 1e-10


def _likelihood() -> Iterator[Reading]:
    yield "log density by the probability flow", 0, identities.flow_likelihood(VPLinear(), 256), 3e-6
    for x, expected in ((-1.0, -0.736128), (0.0, -1.483614), (0.6, -0.359323), (1.5, -2.890573)):
        yield f"evidence lower bound at {x:g}", expected, identities.elbo(VE(), x), 3e-6
    yield "that bound on VE and on flow", 0, identities.elbo(VE(), 0.3) - identities.elbo(Flow(), 0.3), 1e-9


def _averages() -> Iterator[Reading]:
    for sigma_rel, gamma in ((0.05, 16.972), (0.1, 6.937), (0.15, 3.558)):
        yield f"average of width {sigma_rel:g}: gamma", gamma, ema.gamma_of(sigma_rel), 5e-4
    steps, every = 320, 20
    share = torch.arange(1, steps + 1, dtype=torch.float64)[:, None] / steps
    weights = torch.cat([torch.cos(9 * share), share.sqrt(), torch.sin(400 * share)], 1)
    averages = {s: torch.zeros(3, dtype=torch.float64) for s in (0.05, 0.1, 0.08, 0.15)}
    stored, kept = [], []
    for step in range(1, steps + 1):
        for sigma_rel, average in averages.items():
            ema.update([average], [weights[step - 1]], step, sigma_rel)
        if step % every == 0:
            stored += [ema.Profile(step, s) for s in (0.05, 0.1)]
            kept += [averages[s].clone() for s in (0.05, 0.1)]
    for sigma_rel in (0.08, 0.15):
        x, _ = ema.mixture(ema.Profile(steps, sigma_rel), stored)
        rebuilt, tracked = torch.from_numpy(x) @ torch.stack(kept), averages[sigma_rel]
        miss = (rebuilt - tracked).norm() / tracked.norm()
        yield f"average of width {sigma_rel:g} from 16 snapshots of others", 0, miss.item(), 1e-3


def _tokens() -> Iterator[Reading]:
    p, half = token_oracles.table(), torch.tensor(0.5, dtype=torch.float64)
    for kind in (MaskedDiffusion, UniformDiffusion):
        what = "masked" if kind is MaskedDiffusion else "uniform"
        denoisers = {name: CategoricalDenoiser(kind(s, 3), p) for name, s in token_oracles.SCHEDULES.items()}
        yield f"{what} tokens: the chain of steps is the closed form", 0, token_oracles.chain(kind(Flow(), 3)), 1e-12
        back = max(token_oracles.reverse_marginals(d, half, half / 2) for d in denoisers.values())
        yield f"{what} tokens: reverse steps carry the data's law back", 0, back, 1e-12
        for name, denoiser in denoisers.items():
            error = token_oracles.bound_error(denoiser)
            yield f"{what} tokens, {name}: evidence bound = log p of every x", 0, error, 1e-6
        single = CategoricalDenoiser(kind(Flow(), 3), p.sum(1))
        yield f"{what} tokens: one alone is exact in 3 steps", 0, token_oracles.distance(single, 3), 1e-12
    masked, uniform = (CategoricalDenoiser(k(Flow(), 3), p) for k in (MaskedDiffusion, UniformDiffusion))
    apart = token_oracles.total_variation(p, token_oracles.independent(p))
    for num_steps in (4, 16, 64):
        found = token_oracles.distance(masked, num_steps)
        yield f"masked ancestral, {num_steps} steps: total variation", apart / num_steps, found, 1e-12
    order = oracles.slope(lambda n: token_oracles.distance(uniform, n), (16, 32, 64, 128))
    yield "uniform ancestral: order of the total variation", 1, order, 0.05
    yield "uniform tokens: concrete score = ratio of marginals", 0, token_oracles.score_error(uniform, half), 1e-12


def _guidance() -> Iterator[Reading]:
    mean, std = guidance_oracles.guided_law(3.0, 0.5, 0.5)
    yield "N(1, .5^2) guided from N(0, .5^2), scale 3: mean", 2.99925, mean, 1e-4
    yield "N(1, .5^2) guided from N(0, .5^2), scale 3: spread", 0.5, std, 1e-4
    narrow = guidance_oracles.guided_law(2.0, 0.5, 1.0)[1]
    yield "N(1, .5^2) guided from N(0, 1), scale 2: spread", 0.25, narrow, 1e-3
    keepers = solver_oracles.KEEPERS.values()
    yield (
        "guided by the exact classifier = told the class",
        0,
        max(map(guidance_oracles.classifier_gap, keepers)),
        1e-11,
    )
    yield "moment matching = the exact posterior", 0, max(map(guidance_oracles.measured_gap, keepers)), 1e-11
    moved = max(guidance_oracles.rescheduled_gap(VPLinear(), s) for s in keepers)
    yield "a denoiser on another schedule", 0, moved, 1e-11


def _solver(name: str, solver: Solver[Any]) -> Iterator[Reading]:
    if solver.few_step:
        yield f"{name}: variance from an exact map to the end", 1, solver_oracles.mapped_ratio(solver), 1e-2
    elif solver.adaptive:
        yield f"{name}: error in 4 steps", 0, solver_oracles.end_error(solver, 4), 0.02
    elif solver.stochastic:
        found = solver_oracles.law_order(solver)
        # an order higher than promised is no mistake
        yield f"{name}: order of the variance, Gaussian data", solver.order, min(found, solver.order), 0.15
    else:
        yield f"{name}: order", solver.order, solver_oracles.order(solver), 0.15
    if name in solver_oracles.ERRORS_AT_32:
        error = solver_oracles.ERRORS_AT_32[name]
        yield f"{name}: error in 32 steps", error, solver_oracles.end_error(solver, 32), 0.02 * error
    if solver.of_ratio:
        yield f"{name}: VE, VP and flow end alike", 0, solver_oracles.invariance(solver), 1e-12
    yield f"{name}: t = 1 to 0 on every schedule", 0, solver_oracles.ends(solver), 1e-12


def _ancestral(solvers: Mapping[str, Solver[Any]]) -> Iterator[Reading]:
    for num_steps, expected in solver_oracles.ANCESTRAL_RATIOS.items():
        for name in ("ancestral(variance=small)", "ddim(eta=1.0)"):
            if name in solvers:
                found = solver_oracles.variance_ratio(solvers[name], num_steps)
                yield f"{name}: variance in {num_steps} steps", expected, found, 5.1e-4
        if "ancestral" in solvers:
            found = solver_oracles.variance_ratio(solvers["ancestral"], num_steps)
            yield f"ancestral, exact posterior variance, {num_steps} steps", 1, found, 1e-9


def _groups(solvers: Mapping[str, Solver[Any]]) -> Iterator[tuple[str, str, Callable[[], Iterator[Reading]]]]:
    yield "identities", "algebra", _identities
    yield "tables", "published tables", _tables
    yield "likelihood", "density of a mixture", _likelihood
    yield "guidance", "law of Gaussian data", _guidance
    yield "averages", "the average tracked beside it", _averages
    yield "tokens", "every state of a table, listed", _tokens
    for name, solver in solvers.items():
        yield (
            name,
            "law of Gaussian data" if solver.stochastic else "quantile map of a mixture",
            partial(_solver, name, solver),
        )
    yield "ancestral", "linear recursion on Gaussian data", partial(_ancestral, solvers)


def run_checks(solvers: Mapping[str, Solver[Any]] | None = None) -> list[Check]:
    """Every figure, in float64 on the CPU, in well under a minute.

    Args:
        solvers: name -> solver to measure; every one in langevin.solvers where not given.
    """
    solvers = solver_oracles.registered() if solvers is None else solvers
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # every tensor is small
    try:
        return [check for group in _groups(solvers) for check in _measured(*group)]
    finally:
        torch.set_num_threads(threads)


def _measured(group: str, oracle: str, readings: Callable[[], Iterator[Reading]]) -> Iterator[Check]:
    start = time.perf_counter()
    try:
        for name, expected, found, tolerance in readings():
            now = time.perf_counter()
            ok = math.isfinite(found) and abs(found - expected) <= tolerance
            yield Check(name, oracle, expected, found, tolerance, ok, now - start)
            start = now
    except Exception as error:  # a solver from elsewhere may do anything; the table says so and goes on
        seconds = time.perf_counter() - start
        yield Check(group, oracle, math.nan, math.nan, 0.0, False, seconds, f"{type(error).__name__}: {error}")


def table(checks: list[Check]) -> str:
    """The checks as lines of text, the wrong ones marked, and a sentence that sums up."""
    width = max((len(c.name) for c in checks), default=0)
    lines = [f"{'':5}  {'':{width}}  {'expected':>12}  {'found':>12}  {'within':>8}  against"]
    for c in checks:
        mark = "ok" if c.ok else "WRONG"
        figures = c.error or f"{c.expected:12.6g}  {c.found:12.6g}  {c.tolerance:8.1g}"
        lines.append(f"{mark:5}  {c.name:{width}}  {figures}  {c.oracle}")
    wrong, seconds = sum(not c.ok for c in checks), sum(c.seconds for c in checks)
    verdict = f"{wrong} of {len(checks)} figures are wrong" if wrong else f"all {len(checks)} figures are right"
    return "\n".join([*lines, f"{verdict} ({seconds:.1f} s)"])

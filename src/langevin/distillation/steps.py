"""Step tuning: the times at which a solver with so many steps ends nearest to the fine solution, for one denoiser.

From starts x_1 the fine trajectory ends in x_0. A solver on times t_1 > ... > t_{N-1} ends in x_0 + e(t), and the mean
distance |e| over the starts is made small. With psi of `langevin.solvers.grids.Scales` and its N gaps d_i > 0 between t = 1 and
t = 0, d = softmax(u) times the whole, u is moved by Gauss-Newton steps, damped after Levenberg and Marquardt,

    (J^T W J + damping diag(J^T W J)) du = -J^T W e,   W = 1 / |e| for each start,

which minimise |e| rather than |e|^2, so that a few starts which end in another mode do not decide. J is by differences: N - 1
solutions with N evaluations each, and no gradient of the network. Trained on half of the starts, judged on the other half.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.registry import names
from langevin.solvers import Grid, Solver, trajectory
from langevin.solvers.adams import Adams
from langevin.solvers.angle import Angle
from langevin.solvers.ddim import DDIM
from langevin.solvers.dpmpp import DPMpp
from langevin.solvers.grids import Scales, Times

SOLVERS: tuple[Solver[Any], ...] = (
    Angle(order=2),
    Angle(order=3),
    Angle(),
    Adams(),
    Adams(order=4),
    Adams(correct="always"),
    DPMpp(),
    DDIM(),
)
"""Those of one evaluation a step that are tried on every grid."""
MOVE = 0.03
"""Difference of u by which J is found."""
TRIES = 3
"""Solvers whose times are tuned."""
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Tuned:
    """The best way found to take `num_steps` steps.

    Attributes:
        solver, grid: of the tuned steps, or the best built-in ones where those end nearer.
        error: mean distance from the fine solution on the held-out starts, over the root mean square of that solution.
        built_in: the best built-in solver and grid, judged on the starts that tuning saw.
        built_in_error: theirs on the held-out starts.
        default_error: that of given `kept`, on the held-out starts.
        gained: whether tuning beat all built-in ones and `kept`.
    """

    solver: Solver[Any]
    grid: Grid
    error: float
    built_in: tuple[Solver[Any], Grid]
    built_in_error: float
    default_error: float
    gained: bool


class _Problem:
    """Starts, where they should end, and how far from there a solver ends."""

    def __init__(self, denoiser: Denoiser, x: Tensor, cond: Condition | None, fine: int, batch: int) -> None:
        self.denoiser, self.x, self.cond, self.batch = denoiser, x, cond, batch
        schedule = denoiser.process.schedule
        self.ends = self.solve(Angle(), Scales()(schedule, fine))
        self.size = self.ends.double().square().mean().sqrt().item() * math.sqrt(self.ends[0].numel())

    def solve(self, solver: Solver[Any], times: Tensor) -> Tensor:
        """(B, ...) where the starts end."""
        out = []
        for rows in (slice(i, i + self.batch) for i in range(0, len(self.x), self.batch)):
            cond = None if self.cond is None else {k: v[rows] for k, v in self.cond.items()}
            *_, step = trajectory(self.denoiser, solver, self.x[rows], times, cond=cond)
            out.append(step.x)
        return torch.cat(out)

    def away(self, solver: Solver[Any], times: Tensor) -> Tensor:
        """(B, D) float64 e."""
        return (self.solve(solver, times) - self.ends).flatten(1).double()


def _distance(away: Tensor) -> float:
    found = away.norm(dim=1).mean().item()
    return found if math.isfinite(found) else math.inf


def tune_steps(
    denoiser: Denoiser,
    x: Tensor,
    num_steps: int,
    *,
    cond: Condition | None = None,
    kept: "tuple[Solver[Any], Grid] | None" = None,
    fine: int = 100,
    rounds: int = 12,
    batch: int = 64,
    progress: Progress = lambda share: None,
) -> Tuned:
    """Tune `num_steps` steps of one evaluation each.

    Args:
        x: (B, ...) starts at t = 1, B >= 4; the first half is learned from, the second is held out.
        cond: of the starts.
        kept: what is in use; it stays unless something ends nearer.
        fine: steps of the solution to be met.
        rounds: Gauss-Newton steps for each of the solvers that are tuned.
        batch: starts at once.
        progress: called with the share done.

    Raises:
        ValueError: fewer than 4 starts, or num_steps below 1 or not below `fine`.
    """
    if len(x) < 4 or not 1 <= num_steps < fine:
        raise ValueError(f"tuning needs 4 starts or more and 1 to {fine - 1} steps, not {len(x)} and {num_steps}")
    half = len(x) // 2
    seen, held = (
        _Problem(denoiser, x[rows], None if cond is None else {k: v[rows] for k, v in cond.items()}, fine, batch)
        for rows in (slice(half), slice(half, None))
    )
    progress(0.1)
    schedule = denoiser.process.schedule
    ranked = sorted(_built_in(seen, num_steps, progress), key=lambda row: row[0])
    best_built_in, tries = ranked[0][1:], _distinct(ranked)
    found: list[tuple[float, Solver[Any], Grid]] = []
    for number, (solver, grid) in enumerate(tries if num_steps > 1 else []):
        share = _part(progress, 0.5 + number / (2 * len(tries)), 1 / (2 * len(tries)))
        times = _descend(seen, solver, grid(schedule, num_steps), rounds, share)
        found.append((_distance(seen.away(solver, times)), solver, Times(tuple(times.tolist()))))

    def judged(solver: Solver[Any], grid: Grid) -> float:
        return _distance(held.away(solver, grid(schedule, num_steps))) / held.size

    kept = kept or best_built_in
    tuned = min(found, key=lambda row: row[0])[1:] if found else best_built_in
    errors = {choice: judged(*choice) for choice in (best_built_in, kept, tuned)}
    chosen = min((kept, best_built_in, tuned), key=errors.__getitem__)
    progress(1.0)
    return Tuned(
        *chosen,
        errors[chosen],
        best_built_in,
        errors[best_built_in],
        errors[kept],
        gained=chosen in [f[1:] for f in found],
    )


def _built_in(problem: _Problem, num_steps: int, progress: Progress) -> Iterator[tuple[float, Solver[Any], Grid]]:
    """Every grid that fits so many steps with each of the solvers, and how far both end from the fine solution."""
    schedule = problem.denoiser.process.schedule
    grids = [cls() for cls in names("langevin.solvers.grids", Grid).values() if cls is not Times]  # type: ignore[type-abstract]
    for number, grid in enumerate(grids):
        try:
            times = grid(schedule, num_steps)
        except ValueError:
            continue
        for solver in SOLVERS:
            yield _distance(problem.away(solver, times)), solver, grid
        progress(0.1 + 0.4 * (number + 1) / len(grids))


def _part(progress: Progress, start: float, length: float) -> Progress:
    """The progress of a part of the work."""
    return lambda share: progress(start + length * share)


def _distinct(ranked: list[tuple[float, Solver[Any], Grid]]) -> list[tuple[Solver[Any], Grid]]:
    """The best grid of each of the best solvers."""
    best: dict[Solver[Any], Grid] = {}
    for _, solver, grid in ranked:
        best.setdefault(solver, grid)
    return list(best.items())[:TRIES]


def _descend(problem: _Problem, solver: Solver[Any], times: Tensor, rounds: int, progress: Progress) -> Tensor:
    """Times that end nearer."""
    u = _gaps(problem, times).log()
    at: Callable[[Tensor], Tensor] = lambda u: problem.away(solver, _times(problem, u.softmax(0)))  # noqa: E731
    away, damping = at(u), 0.1
    for number in range(rounds):
        here = _distance(away)
        columns = []
        for i in range(1, len(u)):  # the gaps have one whole: the first is not free
            moved = u.clone()
            moved[i] += MOVE
            columns.append((at(moved) - away) / MOVE)
        J = torch.stack(columns, -1)  # (B, D, N - 1)
        length = away.norm(dim=1)
        weight = 1 / (length + 0.1 * length.median() + 1e-300)
        normal = torch.einsum("bdi,b,bdj->ij", J, weight, J).cpu()
        right = torch.einsum("bdi,b,bd->i", J, weight, away).cpu()
        for _ in range(6):
            scale = normal.diagonal()
            move = -torch.linalg.lstsq(normal + torch.diag(damping * scale + 1e-12 * scale.max()), right).solution
            trial = u + torch.cat([u.new_zeros(1), move.clamp(-1, 1)])
            if _distance(there := at(trial)) < here:
                u, away, damping = trial, there, damping / 5
                break
            damping *= 5
        progress((number + 1) / rounds)
        if _distance(away) > 0.998 * here:
            break
    return _times(problem, u.softmax(0))


def _gaps(problem: _Problem, times: Tensor) -> Tensor:
    """(N,) shares of psi from t = 1 to t = 0 between times (N + 1,)."""
    return Scales().shares(problem.denoiser.process.schedule, times).diff().clamp(min=1e-9)


def _times(problem: _Problem, gaps: Tensor) -> Tensor:
    """(N + 1,) times from the shares."""
    return Scales().visits(problem.denoiser.process.schedule, gaps.cumsum(0)[:-1])

"""Quality over evaluations of the network: how few are enough."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from langevin.errors import UsageError
from langevin.model import Model
from langevin.recipes.curves.base import Advice, Apart, Over, Point, Row, Subject, above, lowest

MOST = 1_000


@dataclass(frozen=True)
class Steps(Over):
    """The model's own method for each number: its tuned steps where it has them, as many steps as its solver takes in so many
    evaluations."""

    axis = "evaluations of the network"
    default = (4, 5, 6, 8, 10, 12, 16, 20, 32, 50, 100)
    log = True
    panels = (*Over.panels, "seconds")

    def check(self, run: Path, model: Model, at: Sequence[float]) -> None:
        if not all(x == int(x) and 1 <= x <= MOST for x in at):
            given = ", ".join(f"{x:g}" for x in at)
            raise UsageError(f"evaluations are whole numbers from 1 to {MOST:,}, not {given}", help="--at 4 8 16")

    def points(self, of: Subject, at: Sequence[float]) -> Iterable[Point]:
        taken: set[int] = set()
        for count in map(int, at):
            steps = max(1, count // max(1, of.model.method(count)[1].evaluations))
            if steps not in taken:  # of a solver that takes two evaluations a step, 4 and 5 are the same
                taken.add(steps)
                facts = {"steps": steps, "tuned": of.model.tuned(steps) is not None}
                yield Point(count, f"{count}", of.model, {"steps": steps}, facts)

    def advise(self, of: Subject, rows: Sequence[Row], apart: Apart) -> Advice:
        """The fewest evaluations whose Frechet distance lies within one standard error of the difference of the lowest."""
        best = lowest(rows)
        row = next(r for r in rows if r is best or (gap := apart(r, best)).value <= gap.error)
        if row is best:
            fewer = [r for r in rows if r.x < best.x]
            why = "the lowest Frechet distance" + (
                f", and with {fewer[-1].name} evaluations it is {above(apart(fewer[-1], best))}" if fewer else ""
            )
        else:
            why = (
                f"the fewest evaluations whose Frechet distance is within one standard error of the lowest, that of "
                f"{best.name}: {above(apart(row, best))} it"
            )
        command = f"langevin sample {shlex.quote(str(of.run))} -n 64"
        return Advice(row, why, command, {"steps": row.settings["steps"]})

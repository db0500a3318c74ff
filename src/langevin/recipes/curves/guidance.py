"""Quality over the strength of guidance: how much of it shows the classes without losing variety."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from langevin.errors import UsageError
from langevin.model import Model
from langevin.recipes.curves.base import Advice, Apart, Over, Point, Row, Subject, above, lowest

MOST = 100.0
AGREEMENT = "label agreement"
SURE = 1.96
"""Agreement that many standard errors below the floor, or more, is below it by more than chance."""


@dataclass(frozen=True)
class Guidance(Over):
    """Classifier-free guidance of each strength, in the model's own interval, with classes as frequent as in the data."""

    axis = "strength of guidance (1 is none)"
    default = (1, 1.25, 1.5, 2, 2.5, 3, 4)
    panels = (*Over.panels, AGREEMENT)

    def check(self, run: Path, model: Model, at: Sequence[float]) -> None:
        if not model.classes:
            raise UsageError(
                "this model was trained without classes: there is nothing to guide it to",
                where=str(run),
                help="langevin curve RUN --over steps",
            )
        if not all(0 <= x <= MOST for x in at):
            given = ", ".join(f"{x:g}" for x in at)
            raise UsageError(f"strengths of guidance lie between 0 and {MOST:g}, not {given}", help="--at 1 1.5 2 3")

    def points(self, of: Subject, at: Sequence[float]) -> Iterable[Point]:
        if of.config.dropout == 0:
            raise UsageError(
                "this model never saw an item without its class: guidance has nothing to lead away from",
                where=str(of.run),
                help="a run with `dropout` over 0, such as 0.1, learns both",
            )
        interval = of.model.sampling.get("guidance_interval")
        for scale in at:
            acting = {"guidance_interval": interval} if interval is not None and scale != 1 else {}
            yield Point(scale, f"{scale:g}", of.model, {"guidance": scale, **acting})

    def advise(self, of: Subject, rows: Sequence[Row], apart: Apart) -> Advice:
        """The lowest Frechet distance among those that show their classes as well as real items do, else of all."""
        best, showing = lowest(rows), [row for row in rows if shows_classes(row)]
        row = lowest(showing) if showing else best
        if rows[0].figure(AGREEMENT) is None:
            why = "the lowest Frechet distance; too few real items have labels to say whether classes are shown"
        elif not showing:
            why = "the lowest Frechet distance; at none of these strengths are classes shown as well as by real items"
        else:
            why = "the lowest Frechet distance among strengths that show their classes as well as real items do"
            if row is not best:
                why += f"; {above(apart(row, best))} that of {best.name}, which does not show them as well"
        return Advice(row, why, f"langevin sample {shlex.quote(str(of.run))} -n 64", {"guidance": row.x})


def shows_classes(row: Row) -> bool:
    """Whether label agreement is not significantly below that of real items."""
    figure = row.figure(AGREEMENT)
    return figure is not None and not figure.gap > SURE

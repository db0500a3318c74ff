"""Quality over the width of the average of the weights: what `langevin ema` can make, each sampled from."""

import dataclasses
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from langevin.errors import UsageError
from langevin.model import Model
from langevin.recipes import averages
from langevin.recipes.averages import Average, Measured
from langevin.recipes.curves.base import Advice, Apart, Over, Point, Row, Subject, lowest
from langevin.recipes.ema import at_its_end
from langevin.recipes.session import Session
from langevin.recipes.signals import at_each_evaluation
from langevin.training import snapshots

SURE = 2.0
"""A held-out loss fewer standard errors above the best is not told apart from it."""


@dataclass(frozen=True)
class OverAverage(Over):
    """Raw weights, each average that was tracked, and those of the given widths that the snapshots reach."""

    axis = "width of the average (sigma_rel)"
    default = averages.WIDTHS
    even = True
    panels = (*Over.panels, "held-out loss")

    def check(self, run: Path, model: Model, at: Sequence[float]) -> None:
        if not all(0.001 < x < 0.28 for x in at):
            given = ", ".join(f"{x:g}" for x in at)
            raise UsageError(f"widths lie between 0.001 and 0.28, not {given}", help="--at 0.05 0.1 0.2")

    def points(self, of: Subject, at: Sequence[float]) -> Iterable[Point]:
        session = ended(of)
        if not snapshots.folders(of.run):
            of.console.say(
                "note       the run kept no snapshots (its setting `snapshots`): only what it tracked is shown"
            )
        others = [s for s in at if s not in session.state.averages]
        every = averages.candidates(of.run, session.state, others, of.console.say)
        for average in sorted(every, key=lambda a: (a.sigma_rel, a.step)):
            name = "raw" if average.kind == "raw" else f"{average.sigma_rel:g}"
            name += f" at {average.step:,}" * bool(average.step)
            yield weighed(of, session, average, average.sigma_rel, name)

    def advise(self, of: Subject, rows: Sequence[Row], apart: Apart) -> Advice:
        """The lowest Frechet distance among averages whose held-out loss cannot be told from the best."""
        known = [(row, row.weights) for row in rows if row.weights is not None and row.weights.average.kind != "raw"]
        best = averages.best(weights for _, weights in known)
        near = [row for row, weights in known if weights is best or _is_near(weights, best)]
        row = lowest(near)
        assert row.weights is not None
        one, run = row.weights.average, shlex.quote(str(of.run))
        within = f"whose held-out loss is within {SURE:g} standard errors of the best"
        why = f"the lowest Frechet distance of the {len(near)} {within}" if len(near) > 1 else f"the only one {within}"
        if of.model.about.get("average") == str(one):
            return Advice(row, f"{why}; the model has it already", f"langevin sample {run} -n 64")
        step = f" --step {one.step}" if one.step else ""
        return Advice(row, why, f"langevin ema {run} --sigma-rel {one.sigma_rel:g}{step} --publish")


def _is_near(one: Measured, best: Measured) -> bool:
    apart, error = one.above(best)
    return not math.isnan(error) and apart <= SURE * error


def ended(of: Subject) -> Session:
    """The run as it ended; what it samples with heeds signals."""
    session = at_its_end(of.run, of.config, of.dataset, of.console)
    at_each_evaluation(session.averaged, of.heed)
    return session


def weighed(of: Subject, session: Session, average: Average, x: float, name: str) -> Point:
    """The point of these weights, sampled as the run's model is, but in no steps that were tuned for others."""
    level = session.loss(average.tensors)
    sampling = {k: v for k, v in of.model.sampling.items() if k != "tuned"}
    model = dataclasses.replace(session.averaged_model(), sampling=sampling)
    facts = {"kind": average.kind, "sigma_rel": average.sigma_rel, "step": average.step or None}
    measured = Measured(dataclasses.replace(average, tensors={}, raw=None), level)
    return Point(x, name, model, facts=facts, weights=measured)

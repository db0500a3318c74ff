"""Quality over the steps of a training: whether its end was its best moment, and whether more of it pays."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from langevin.errors import UsageError
from langevin.model import Model
from langevin.recipes.averages import Average
from langevin.recipes.curves.average import ended, weighed
from langevin.recipes.curves.base import Advice, Apart, Over, Point, Row, Subject, above, lowest
from langevin.training import kept, snapshots

SURE = 2.0
"""Differences of fewer standard errors are not told from none."""


@dataclass(frozen=True)
class Training(Over):
    """The first of the run's averages, at each step whose snapshot or checkpoint is still there."""

    axis = "steps of training"
    panels = (*Over.panels, "held-out loss")

    def check(self, run: Path, model: Model, at: Sequence[float]) -> None:
        if wrong := [x for x in at if x != int(x) or x < 1]:
            raise UsageError(f"steps of a training are whole numbers, not {wrong[0]:g}")

    def points(self, of: Subject, at: Sequence[float]) -> Iterable[Point]:
        session, width = ended(of), of.config.ema[0]
        like, say = dict(session.model.denoiser.network.named_parameters()), of.console.say
        stored = {one.step: one for one in (*kept.sound(of.run, like, say), *snapshots.sound(of.run, like, say))}
        there = {step: one for step, one in sorted(stored.items()) if width in one.widths}
        if missing := [int(x) for x in at if x not in there]:
            raise UsageError(
                f"there is neither snapshot nor checkpoint of step {missing[0]:,}",
                where=str(of.run),
                help="there are those of steps " + ", ".join(map(str, there)),
            )
        for step, one in there.items():
            if not at or step in at:
                average = Average("tracked", width, one.tensors(like)[width], step=step)
                yield weighed(of, session, average, step, f"{step:,}")

    def advise(self, of: Subject, rows: Sequence[Row], apart: Apart) -> Advice:
        """Whether the last is as good as any, and whether it still gets better."""
        last, best, run = rows[-1], lowest(rows), shlex.quote(str(of.run))
        width = f"{of.config.ema[0]:g}"
        if last is not best and (gap := apart(last, best)).value > SURE * gap.error:
            why = f"the last step is not the best: its Frechet distance is {above(gap)} that of step {best.name}"
            return Advice(best, why, f"langevin ema {run} --sigma-rel {width} --step {int(best.x)} --publish")
        why = (
            "the last step is the best"
            if last is best
            else f"no step is surely better than the last ({best.name} is lowest)"
        )
        half = [row for row in rows[:-1] if row.x <= last.x / 2][-1:]
        if half and (gain := apart(half[0], last)).value > SURE * gain.error:
            why += f", and step {half[0].name} is {above(gain)} it: a longer run pays"
            more = (
                f"--steps {2 * of.config.steps}" if of.config.steps else f"--minutes {2 * (of.config.minutes or 10):g}"
            )
            return Advice(last, why, f"langevin train --resume {run} {more}")
        return Advice(last, why, f"langevin sample {run} -n 64")

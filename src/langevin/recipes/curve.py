"""`langevin curve`: how good samples are over a setting, each point from the same seeds; the best setting is kept.

runs/NAME-k/   curve-steps.png  curve-steps.json     over steps, guidance, average or training
"""

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langevin import store
from langevin.errors import MemoryShortError, UsageError
from langevin.evaluation.figures import LEAST, Figure, Yardstick
from langevin.evaluation.labels import LabelJudge
from langevin.evaluation.metrics.base import Estimate
from langevin.model import locate
from langevin.recipes import folders, settings
from langevin.recipes.console import Console
from langevin.recipes.curves import sheet
from langevin.recipes.curves.base import Advice, Over, Point, Row, Subject
from langevin.recipes.outcome import some_rows, with_axis
from langevin.recipes.plan import ready
from langevin.recipes.reopen import reopen
from langevin.recipes.signals import StoppedError, at_each_evaluation, going_on, stop_requests
from langevin.registry import find
from langevin.training.memory import shrinking
from langevin.words import counted

N, MOST = 1_000, 100_000
"""Samples of a point, where nobody says how many, and the most."""
FIRST_SEED = 2_000_000
"""Not those of the figures that a run ends with: what is chosen by one set is told of another."""


@dataclass(frozen=True, eq=False)
class Curve:
    """What was measured.

    Attributes:
        rows: by x.
        advice: what is recommended; None where the curve was stopped before its end.
        picture, facts: the files written.
        stored: whether the setting was put into the model's folder.
    """

    rows: tuple[Row, ...]
    advice: Advice | None
    picture: Path
    facts: Path
    stored: bool


def curve(
    run: "str | Path",
    over: str,
    *,
    at: Sequence[float] = (),
    n: int = N,
    seed: int = FIRST_SEED,
    batch: int = 64,
    dry: bool = False,
    console: Console | None = None,
) -> Curve:
    """Measure samples of a finished run over a setting, draw the curve, recommend a setting and keep it with the model.

    Args:
        run: its folder.
        over: steps, guidance, average or training.
        at: values of x; chosen where none is given.
        n: samples of a point; never more than there are held-out items.
        seed: of the first sample of each point; sample k has seed + k at all of them.
        batch: samples at once.
        dry: whether the model's folder stays as it is.

    Raises:
        UsageError: a run that has not finished, or no such kind, or an x that cannot be. DataError: other data than the run's.
        StoppedError: with what was measured by then on the disk, and no setting kept.
    """
    run, console = folders.found(Path(run), "config.yaml", "such run"), console or Console()
    kind = find("langevin.recipes.curves", over, Over)()
    if not (run / "figures.json").is_file() or locate(run).name != "model":
        raise UsageError("curves are taken when a run has finished", where=str(run), help=going_on(run))
    if not LEAST <= n <= MOST:
        raise UsageError(f"a point has {LEAST} to {MOST:,} samples, not {n:,}")
    model, wanted = ready(run), sorted(set(at or kind.default))
    kind.check(run, model, wanted)
    if len(wanted) == 1:
        raise UsageError("a curve has two points at least", help=f"--at {wanted[0]:g} and another")
    with console, stop_requests() as stop:

        def heed() -> None:
            stop.heed("stopped")

        at_each_evaluation(model.denoiser, heed)
        config, dataset = reopen(run, heed)
        subject = Subject(run, model, config, dataset, console, heed)
        ruler, rows = _Ruler(subject, n, seed, batch), []
        told = f"{run}: {counted(ruler.yardstick.count, 'sample')} a point, seeds {seed} on"
        if not ruler.yardstick.has_unseen:
            told += ", held against half of the training items: too few are held out"
        console.say(f"curve      {told}")
        try:
            for row in ruler.rows(kind.points(subject, wanted)):
                if not rows:
                    console.say(sheet.heading(kind))
                rows.append(row)
                console.say(sheet.line(kind, row, rows), row=sheet.facts(row, rows))
            console.say(sheet.floor(kind, rows))
            advice = kind.advise(subject, rows, ruler.apart)
            heed()
        except StoppedError as stopped:
            if len(rows) > 1:
                made = _write(subject, kind, over, rows, None, ruler, stored=False)
                console.say(f"made       {made.picture}: {len(rows)} points of a curve that was stopped")
            done = {row.x for row in rows}
            left = " ".join(f"{x:g}" for x in wanted if x not in done)
            again = f"langevin curve {shlex.quote(str(run))} --over {over}" + f" --at {left}" * bool(left and at)
            raise StoppedError("stopped: no setting is kept", exit_code=stopped.exit_code, help=again) from None
        finally:
            console.done()
        stored = bool(advice.setting) and not dry
        if stored:
            settings.keep(locate(run), lambda own: {**own, **advice.setting})
        made = _write(subject, kind, over, rows, advice, ruler, stored=stored)
        _tell(made, run, console.say)
        return made


class _Ruler:
    """What all points are held against: real items, described once."""

    def __init__(self, subject: Subject, n: int, seed: int, batch: int) -> None:
        self.subject, self.batch = subject, batch
        data = subject.dataset
        train, unseen = (some_rows(data, rows) for rows in (data.train_indices, data.held_out_indices))
        seen = data.take(train), data.take(unseen)
        self.yardstick = Yardstick.of(*seen, n, subject.config.seed, subject.heed)
        self.seeds = range(seed, seed + self.yardstick.count)
        self.labels = subject.model.labels(self.seeds)
        self.judge = None if self.labels is None else LabelJudge.among(data.items, data.columns["label"], train, unseen)

    def rows(self, points: Iterable[Point]) -> Iterator[Row]:
        """The points, measured one by one."""
        self.subject.model.sample(seeds=self.seeds[: self.batch], steps=2, batch=self.batch)  # the first call is slower
        for point in points:
            items, seconds = self._draw(point)
            yield Row(
                point.x, point.name, point.settings, point.facts, point.weights, self._figures(items), items, seconds
            )

    def _figures(self, items: np.ndarray) -> tuple[Figure, ...]:
        found = self.yardstick.measure(items)
        if self.judge is not None and self.labels is not None:
            found.append(self.judge.agreement(items, self.labels))
        return tuple(found)

    def _draw(self, point: Point) -> tuple[np.ndarray, float]:
        console = self.subject.console

        def progress(done: int, n: int) -> None:
            console.progress("sampling", done / n, f"{point.name}: {done:,} of {n:,}")
            self.subject.heed()

        def draw(batch: int) -> tuple[np.ndarray, float]:
            start = time.perf_counter()
            made = point.model.sample(seeds=self.seeds, batch=batch, progress=progress, **point.settings)
            return made, (time.perf_counter() - start) / len(self.seeds)

        found = shrinking(draw, self.batch, "samples", console.say)
        console.done()
        if found is None:
            raise MemoryShortError("no memory for a single sample", help="draw it on a larger machine")
        return with_axis(found[0], point.model), found[1]

    def apart(self, row: Row, other: Row) -> Estimate:
        """How far the Frechet distance of a row lies above another's."""
        return self.yardstick.difference(row.items, other.items)


def _write(
    of: Subject, kind: Over, over: str, rows: list[Row], advice: Advice | None, ruler: _Ruler, *, stored: bool
) -> Curve:
    picture = of.run / f"curve-{over}.png"
    if picture.exists() or picture.with_suffix(".json").exists():
        picture = store.free_path(picture, ".json")
    facts = picture.with_suffix(".json")
    yardstick = ruler.yardstick
    found: dict[str, Any] = {
        "over": over,
        "axis": kind.axis,
        "model": of.model.digest,
        "data": of.dataset.fingerprint,
        "samples": yardstick.count,
        "seeds": [ruler.seeds[0], ruler.seeds[-1]],
        "features": yardstick.features[-1].name,
        "complete": advice is not None,
        "recommended": None,
        "rows": [sheet.facts(row, rows) for row in rows],
    }
    if advice is not None:
        recommended = {"x": advice.row.x, "setting": dict(advice.setting), "stored": stored}
        found["recommended"] = {**recommended, "why": advice.why, "next": advice.next}
    how = f"{counted(yardstick.count, 'sample')} a point from the same seeds, features: {yardstick.features[-1].name}"
    words = "stopped before its end" if advice is None else f"recommended: {advice.row.name}, {advice.why}"
    sheet.draw(kind, rows, advice, f"{of.run.name}: {how}\n{words}", picture)
    sheet.write_facts(facts, found)
    return Curve(tuple(rows), advice, picture, facts, stored)


def _tell(made: Curve, run: Path, say: Callable[[str], None]) -> None:
    advice = made.advice
    assert advice is not None
    say("")
    say(f"take       {advice.row.name}: {advice.why}")
    if advice.setting:
        (setting,) = advice.setting.items()
        words = f"`sampling.{setting[0]}` is {setting[1]:g}"
        say(
            f"kept       {locate(run) / 'config.json'}: {words}"
            if made.stored
            else f"kept       nothing: {words} without --dry"
        )
    say(f"made       {made.picture}")
    say(f"rows       {made.facts}")
    say(f"next       {advice.next}")

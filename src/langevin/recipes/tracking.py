"""What trackers are told, and what stands between them and the run: a bounded buffer and a thread for each.

A tracker that is slow, fails or hangs costs the run nothing: what it has not taken waits, thinned where it grows long; after
a failure it is made anew a little later; one line says so, once; at the end it has a few seconds, and then is left alone.
"""

import importlib.util
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from langevin import registry
from langevin.config import TrainConfig
from langevin.errors import UsageError
from langevin.recipes.trackers.base import Tracker
from langevin.recipes.watch import Began, Event, Finished, Looked, Stepped
from langevin.words import counted

BUFFER_BYTES = 32 << 20
"""What waits for one tracker, at most; beyond it every other thing is forgotten, and of further rows every other is taken."""
ROW_SECONDS = 0.5
"""Between two rows of one tracker; the first hundred steps are told one by one."""
AGAIN_SECONDS = 2.0
"""After the first failure; then twice as long each time, up to a minute."""
PATIENCE = 10.0
"""Seconds that trackers have at the end, all together."""
HASTE = 2.0
"""The same where the run is asked to leave, or fails."""
_ROOM = "langevin.recipes.trackers"
_ROW_BYTES = 1024


def kinds(names: Sequence[str]) -> dict[str, type[Tracker]]:
    """The trackers of these names. Raises UsageError: an unknown name, or the extra that is not installed."""
    found = {name: registry.find(_ROOM, name, Tracker) for name in names}
    for name, kind in found.items():
        if kind.module and importlib.util.find_spec(kind.module) is None:
            raise UsageError(
                f"the tracker `{name}` needs {kind.module}, which is not installed",
                help="pip install 'langevin[track]'",
            )
    return found


class Tracking:
    """A watcher that tells trackers, which are made when the first thing is told. Used in a `with` block.

    Args:
        config: names the trackers.
        say: for one line about one that fails.
    """

    def __init__(self, folder: Path, config: TrainConfig, say: Callable[[str], None]) -> None:
        facts = config.model_dump(mode="json")
        facts["data"]["path"] = Path(config.data.path).name  # where things lie on this machine is nobody's business
        self._say = say
        self._lines = [_Line(name, _maker(kind, folder, facts)) for name, kind in kinds(config.track).items()]
        self._losses: list[float] = []
        self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self._lines:
            line.close()
        until = time.monotonic() + (PATIENCE if kind is None else HASTE)
        for line in self._lines:
            line.leave(max(0.0, until - time.monotonic()))
            self._relay(line)

    def __call__(self, event: Event) -> None:
        if not self._lines:
            return
        match event:
            case Began(step=step):
                for line in self._lines:
                    line.begin(step)
            case Stepped():
                self._step(event)
            case Looked(step=step, level=level, sheet=sheet):
                levels = zip(level.ratios, level.losses, strict=True)
                self._tell(step, {"held_out/mean": level.mean, **{f"held_out/sigma {r:.3g}": v for r, v in levels}})
                if sheet is not None:
                    self._show(step, "samples", np.asarray(sheet.convert("RGB")))
            case Finished(step=step, run=run):
                self._tell(step, {f"figures/{figure.name}": figure.value for figure in run.figures})

    def _step(self, event: Stepped) -> None:
        metrics, now = event.metrics, time.monotonic()
        self._losses.append(metrics.loss)
        if metrics.step > 100 and now - self._told < ROW_SECONDS and event.share < 1:
            return
        row = {
            "train/loss": sum(self._losses) / len(self._losses),
            "train/lr": metrics.lr,
            "train/grad_norm": metrics.grad_norm,
            **{f"machine/{name}": value for name, value in event.clock.items()},
        }
        self._losses, self._told = [], now
        self._tell(metrics.step, row, often=True)

    def _tell(self, step: int, values: Mapping[str, float], *, often: bool = False) -> None:
        for line in self._lines:
            line.put(_Thing(step, dict(values)), often=often)
            self._relay(line)

    def _show(self, step: int, name: str, array: np.ndarray) -> None:
        for line in self._lines:
            line.put(_Thing(step, array, name))

    def _relay(self, line: "_Line") -> None:
        """Say a tracker's trouble, from this thread, where lines of the run are said."""
        if trouble := line.trouble():
            self._say(trouble)


def _maker(kind: type[Tracker], folder: Path, facts: Mapping[str, Any]) -> Callable[[int], Tracker]:
    return lambda step: kind(folder, facts, step)


@dataclass(frozen=True, eq=False)
class _Thing:
    """What is told: numbers by name, or a picture with its name."""

    step: int
    what: "dict[str, float] | np.ndarray"
    name: str = ""

    @property
    def size(self) -> int:
        return self.what.nbytes if isinstance(self.what, np.ndarray) else _ROW_BYTES

    def tell(self, tracker: Tracker) -> None:
        if isinstance(self.what, np.ndarray):
            tracker.image(self.step, self.name, self.what)
        else:
            tracker.scalars(self.step, self.what)


class _Line:
    """The way to one tracker: what waits, and the thread that brings it there. No call of the tracker is ever waited for."""

    def __init__(self, name: str, make: Callable[[int], Tracker]) -> None:
        self._name, self._make = name, make
        self._waiting: list[_Thing] = []
        self._change = threading.Condition()
        self._closed = self._left = False
        self._troubles: list[str] = []
        self._failed = self._step = self._count = 0
        self._stride = 1  # of the rows that come often, one in so many is taken
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)

    def begin(self, step: int) -> None:
        self._step = step
        self._thread.start()

    def put(self, thing: _Thing, *, often: bool = False) -> None:
        with self._change:
            self._count += often
            if often and self._count % self._stride:
                return
            self._waiting.append(thing)
            if sum(t.size for t in self._waiting) > BUFFER_BYTES and len(self._waiting) > 1:
                del self._waiting[1::2]  # evenly, so that the whole course is still there
                self._stride *= 2
            self._change.notify()

    def trouble(self) -> str:
        """What is to be said and has not been, or nothing."""
        with self._change:
            return self._troubles.pop() if self._troubles else ""

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._change.notify()

    def leave(self, seconds: float) -> None:
        """Wait so long for what is on its way, then give up; a thread that hangs is left to the end of the process."""
        if self._thread.ident is None:
            return
        self._thread.join(seconds)
        with self._change:
            self._left = True
            rest = len(self._waiting)
            if rest and not self._failed:  # a failure was said already
                self._troubles.append(
                    f"note       the tracker `{self._name}` is slow: {counted(rest, 'thing was', 'things were')} not told"
                )

    def _run(self) -> None:
        tracker, wait = None, AGAIN_SECONDS
        while (thing := self._next()) is not None:
            try:
                tracker = tracker or self._make(self._step)
                thing.tell(tracker)
                self._taken(thing)
                wait = AGAIN_SECONDS
            except BaseException as error:  # whatever it raises ends here: the run must not hear of it
                self._complain(error)
                tracker = _drop(tracker)
                if not self._pause(wait):
                    return
                wait = min(2 * wait, 60.0)
        _drop(tracker)

    def _next(self) -> _Thing | None:
        """The first thing that waits, left where it is until it is taken; None at the end."""
        with self._change:
            while not self._waiting and not self._closed:
                self._change.wait()
            return self._waiting[0] if self._waiting and not self._left else None

    def _taken(self, thing: _Thing) -> None:
        with self._change:
            self._step = max(self._step, thing.step)
            if self._waiting and self._waiting[0] is thing:  # it may have been forgotten meanwhile
                del self._waiting[0]
            if not self._waiting:
                self._stride = 1

    def _complain(self, error: BaseException) -> None:
        with self._change:
            self._failed += 1
            if self._failed == 1:
                what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                self._troubles.append(
                    f"note       the tracker `{self._name}` failed ({what}); the run goes on, it is tried again later"
                )

    def _pause(self, seconds: float) -> bool:
        """Wait to try again; False where the run is over, after one last try."""
        with self._change:
            if self._closed:
                return False
            self._change.wait_for(lambda: self._closed, seconds)
            return True


def _drop(tracker: Tracker | None) -> None:
    with suppress(BaseException):
        if tracker is not None:
            tracker.done()

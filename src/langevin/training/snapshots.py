"""Snapshots of the averages, from which an average of any width is made after the run.

    ema/step-000001200/   averages.safetensors  snapshot.json  manifest.json

With n to keep they are taken at marks, multiples of 1/4n of the budget, of which every second one is dropped whenever there
would be more than n: more than half as many are there at any moment from an eighth of the run on, evenly spread, and the
marks depend on the share of the budget alone, so that a run that was stopped and went on has the same ones. Of those taken
under another budget, every second one is dropped when there are too many. They are kept in full precision: where the learning
rate falls to zero, two widths are 1e-3 of the weights apart, and half precision would round away a third of that.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from langevin import store
from langevin.errors import DiskError, RefusedError, UsageError
from langevin.finite import is_finite
from langevin.training.ema import Profile, edge, mixture

KEEP, FINEST = 12, 4
FORMAT = 1
_FOLDER = re.compile(r"step-(\d{1,12})")

Say = Callable[[str], None]
Averages = Mapping[float, Mapping[str, Tensor]]
"""sigma_rel -> parameters by name."""


def folders(run: Path) -> dict[int, Path]:
    """The snapshots of a run by their steps, in order, whether sound or not."""
    found = {int(m[1]): p for p in (run / "ema").glob("step-*") if (m := _FOLDER.fullmatch(p.name))}
    return dict(sorted(found.items()))


class Snapshots:
    """Those of one run, as it goes.

    Args:
        run: the run's folder.
        step, share: where the run is now; snapshots of later steps are dropped, for those steps are taken again.
        budget: in words; marks under another one are not these.
        keep: how many, at most; with 0 none are taken.
    """

    def __init__(self, run: Path, step: int, share: float, say: Say, *, budget: str = "", keep: int = KEEP) -> None:
        self.run, self.say, self.keep = run, say, keep
        self.budget = f"{budget}, {keep} marks"
        self._go_back(step, share)

    def _go_back(self, step: int, share: float) -> None:
        self._step, self._mark = step, self._mark_at(share)
        for late, folder in folders(self.run).items():
            if late > step:
                shutil.rmtree(folder)

    def look(self, step: int, share: float, averages: Callable[[], Averages]) -> None:
        """Take a snapshot where a mark has been reached since the last look, and drop those that are too many by now.

        Args:
            step: steps done; one below that of the last look means that the run was taken back.
            share: how much of the budget is spent, 0 to 1.
            averages: asked only where there is a snapshot to take.
        """
        if step < self._step:
            self._go_back(step, share)
        if not self.keep:
            return
        mark = self._mark_at(share)
        stride = self._stride(mark)
        reached = mark // stride * stride
        if reached > self._mark:
            self.take(step, reached, averages())
            self._thin(stride)
        self._step, self._mark = step, mark

    def _thin(self, stride: int) -> None:
        there = [one for folder in folders(self.run).values() if (one := _read(folder))]
        gone = [one for one in there if one.budget == self.budget and one.mark % stride]
        if len(there) - len(gone) > self.keep:
            gone += [one for one in there if one.budget != self.budget][-2::-2]
        for one in gone:
            shutil.rmtree(one.path)

    def _mark_at(self, share: float) -> int:
        return int(min(share, 1.0) * FINEST * self.keep)

    def _stride(self, mark: int) -> int:
        """The distance of the marks that are kept when this one has been reached."""
        stride = 1
        while mark > self.keep * stride:
            stride *= 2
        return stride

    def finish(self, step: int, averages: Averages) -> None:
        """Take a snapshot of the last step, wherever the run has ended."""
        if self.keep:
            self.take(step, self._mark, averages)

    def take(self, step: int, mark: int, averages: Averages) -> None:
        """Write a snapshot, unless its numbers are not finite or the disk has no room: the run goes on without it."""
        target = self.run / "ema" / f"step-{step:09d}"
        if target.exists() and is_sound(target):
            return
        tensors = {f"{s}.{k}": v.detach() for s, average in averages.items() for k, v in average.items()}
        if not all(is_finite(v) for v in tensors.values()):
            self.say(f"step {step:,}: no snapshot is taken of averages that are not finite")
            return
        widths = list(averages)
        facts = {
            "format": FORMAT,
            "step": step,
            "at": edge(step),
            "mark": mark,
            "budget": self.budget,
            "widths": widths,
        }

        def write(folder: Path) -> None:
            store.write_tensors(folder / "averages.safetensors", tensors)
            (folder / "snapshot.json").write_text(json.dumps(facts))

        try:
            store.write_folder(target, write, size=store.size_of(tensors), replace=target.exists())
        except DiskError as error:
            self.say(f"step {step:,}: a snapshot of the averages is left out: {error}")


@dataclass(frozen=True)
class Snapshot:
    """What is written beside the tensors of one.

    Attributes:
        path: its folder.
        step, mark, budget: when it was taken.
        at: the step at which its averages were moved last.
        widths: of its averages.
    """

    path: Path
    step: int
    at: int
    mark: int
    budget: str
    widths: tuple[float, ...]

    def tensors(self, like: Mapping[str, Tensor]) -> dict[float, dict[str, Tensor]]:
        """The averages by width; RefusedError where they are not those of parameters like these."""
        expected = {f"{s}.{k}": v for s in self.widths for k, v in like.items()}
        found = store.read_tensors(self.path / "averages.safetensors", expected)
        return {s: {k: found[f"{s}.{k}"] for k in like} for s in self.widths}


def _read(folder: Path) -> Snapshot | None:
    try:
        facts = store.read_json(folder / "snapshot.json")
        if facts["format"] > FORMAT:
            return None
        widths = tuple(float(s) for s in facts["widths"])
        step = int(facts["step"])
        return Snapshot(folder, step, int(facts.get("at", step)), int(facts["mark"]), str(facts["budget"]), widths)
    except (RefusedError, OSError, KeyError, TypeError, ValueError):
        return None


def is_sound(folder: Path) -> bool:
    """Whether the files are what the manifest says."""
    try:
        store.verify(folder)
    except RefusedError:
        return False
    return _read(folder) is not None


def sound(run: Path, like: Mapping[str, Tensor], say: Say) -> list[Snapshot]:
    """The snapshots of a run that can be used, in order; of each of the others it is said why not."""
    found = []
    for folder in folders(run).values():
        try:
            store.verify(folder)
            if (one := _read(folder)) is None:
                raise RefusedError("not readable", where=str(folder / "snapshot.json"))
            if not all(torch.isfinite(v).all() for average in one.tensors(like).values() for v in average.values()):
                raise RefusedError("numbers that are not finite", where=str(folder))
        except RefusedError as error:
            say(f"a snapshot is passed over: {error}")
        else:
            found.append(one)
    return found


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """An average made after the run.

    Attributes:
        profile: its step and width.
        error: how far the snapshots' profiles are from its own, as a share of its norm.
        tensors: the parameters by name, on the CPU.
    """

    profile: Profile
    error: float
    tensors: dict[str, Tensor]


class Stored(Protocol):
    """Averages that others can be made from: a snapshot's, or those in a checkpoint."""

    @property
    def step(self) -> int:
        """When they were stored."""

    @property
    def at(self) -> int:
        """The step at which they were moved last."""

    @property
    def widths(self) -> tuple[float, ...]:
        """Of each."""

    def tensors(self, like: Mapping[str, Tensor]) -> dict[float, dict[str, Tensor]]:
        """The averages by width."""


def rebuild(
    snapshots: Iterable[Stored], widths: Iterable[float], like: Mapping[str, Tensor], *, step: int | None = None
) -> list[Rebuilt]:
    """Averages of any widths at any step, from sound snapshots; one of these is in memory at a time.

    Args:
        snapshots: of `sound`, or of `kept.sound`.
        widths: sigma_rel of each, in (0, 0.28).
        like: the parameters by name.
        step: of which; that of the last snapshot where it is not given. `error` tells how far the snapshots reach.

    Raises:
        UsageError: no snapshots.
    """
    snapshots = list(snapshots)
    if not snapshots:
        raise UsageError("there are no snapshots of the averages", help="a run leaves them in its folder `ema`")
    last = snapshots[-1]
    at = last.at if step in (None, last.step) else edge(step)
    stored = [Profile(one.at, s) for one in snapshots for s in one.widths]
    out, parts = [], []
    for sigma_rel in widths:
        wanted = Profile(at, sigma_rel)
        x, error = mixture(wanted, stored)
        out.append(Rebuilt(wanted, error, {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in like.items()}))
        parts.append(dict(zip(stored, x.tolist(), strict=True)))
    for one in snapshots:
        _add(one, like, out, parts)
    return out


def _add(one: Stored, like: Mapping[str, Tensor], out: list[Rebuilt], parts: list[dict[Profile, float]]) -> None:
    """Add a snapshot's part to each sum."""
    for sigma_rel, average in one.tensors(like).items():
        for rebuilt, part in zip(out, parts, strict=True):
            for k, v in average.items():
                rebuilt.tensors[k].add_(v, alpha=part[Profile(one.at, sigma_rel)])

"""What is judged, and what it is held against: items of a run, a model or a folder, and real items of a run's data or a folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from langevin import data
from langevin.data.dataset import Dataset
from langevin.errors import DataError, UsageError
from langevin.model import Model
from langevin.recipes.console import Console
from langevin.recipes.outcome import some_rows, with_axis
from langevin.recipes.plan import ready
from langevin.recipes.reopen import reopen

FIRST_SEED = 1_000_000
"""Of the samples that figures stand on: not those that a person is likely to look at."""


@dataclass(frozen=True, eq=False)
class Real:
    """Real items (N, H, W, C): those trained on and those held out, their labels (-1 = unknown), and where they are from."""

    dataset: Dataset
    train_rows: np.ndarray
    held_out_rows: np.ndarray
    train: np.ndarray
    held_out: np.ndarray

    @staticmethod
    def of(dataset: Dataset) -> "Real":
        train, held_out = (some_rows(dataset, rows) for rows in (dataset.train_indices, dataset.held_out_indices))
        return Real(dataset, train, held_out, dataset.take(train), dataset.take(held_out))

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        """(n,) classes of rows; None without any."""
        column = self.dataset.columns.get("label") if self.dataset.classes else None
        return None if column is None else np.asarray(column)[rows]

    def texts(self, rows: np.ndarray) -> "list[str] | None":
        """Captions of rows; None without any."""
        column = self.dataset.columns.get("text")
        return None if column is None else [str(text) for text in np.asarray(column)[rows]]

    def name(self, row: int) -> str:
        """Where an item of the training rows came from."""
        return str(self.dataset.names[int(self.train_rows[row])])


@dataclass(frozen=True, eq=False)
class Judged:
    """Generated items (n, H, W, C) in the data's own type, with their labels and texts where they have any.

    model, run: of which they are samples; None for a folder's pictures. how: the way they were drawn, in words.
    """

    name: str
    path: Path
    items: np.ndarray
    labels: np.ndarray | None
    texts: Sequence[str] | None = None
    model: Model | None = None
    run: Path | None = None
    seeds: tuple[int, int] | None = None
    how: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def real_of(path: "Path | None", run: "Path | None", console: Console, heed: Callable[[], None]) -> Real:
    """The real items: at `path`, or those of a run."""

    def progress(done: int, total: int) -> None:
        console.progress("reading", done / max(total, 1), f"{done:,} of {total:,}")
        heed()

    if path is not None:
        dataset = data.open(path, progress=progress)
    elif run is not None:
        dataset = reopen(run, heed)[1]
    else:
        raise UsageError("nothing real to compare with", help="add --real DIR")
    console.done()
    return Real.of(dataset)


def is_run(path: Path) -> bool:
    """Whether a run lies there, whose data are known."""
    return (path / "config.yaml").is_file()


def run_of(path: Path) -> Path | None:
    """The run that a path means or lies in, as its model and its checkpoints do; None where there is none."""
    return next((p for p in (path, *path.absolute().parents[:2]) if is_run(p)), None)


def is_model(path: Path) -> bool:
    """Whether a run or a model lies there."""
    return is_run(path) or (path / "config.json").is_file() or (path / "model" / "config.json").is_file()


def samples_of(
    path: Path, n: int, *, seed: int, settings: dict[str, Any], batch: int, console: Console, heed: Callable[[], None]
) -> Judged:
    """n samples of a run or model."""
    model = ready(path)
    seeds = range(seed, seed + n)

    def progress(done: int, total: int) -> None:
        console.progress("sampling", done / total, f"{done:,} of {total:,}")
        heed()

    items = with_axis(model.sample(seeds=seeds, batch=batch, progress=progress, **settings), model)
    console.done()
    steps, solver, _ = model.method(settings.get("steps"))
    scale = settings.get("guidance")
    scale = model.sampling.get("guidance", 1.0) if scale is None else scale
    how = f"{steps} steps of {type(solver).__name__.lower()}" + (f", guidance {scale:g}" if scale != 1 else "")
    run = path if is_run(path) else None
    name = path.resolve().name if path.resolve().name != "model" else path.resolve().parent.name
    return Judged(name, path, items, model.labels(seeds), None, model, run, (seeds[0], seeds[-1]), how, settings)


def items_of(path: Path, real: Real, n: int, seed: int, console: Console, heed: Callable[[], None]) -> Judged:
    """n pictures of a folder or file, drawn by the seed, brought to the real ones' size; classes by the real ones' names.

    Raises DataError for pictures of another kind.
    """

    def progress(done: int, total: int) -> None:
        console.progress("reading", done / max(total, 1), f"{done:,} of {total:,}")
        heed()

    found = data.open(path, size=real.dataset.shape[:2], progress=progress)
    console.done()
    rows = np.random.default_rng(seed).permutation(len(found))[:n]  # folders are read class by class
    items = found.take(rows)
    if items.shape[1:] != real.train.shape[1:] or items.dtype != real.train.dtype:
        raise DataError(
            f"generated pictures are {items.dtype} {items.shape[1:]}, real ones {real.train.dtype} {real.train.shape[1:]}",
            where=str(path),
            help="save both in one mode (grey, RGB or with transparency) and with as many bits",
        )
    labels = None
    if found.classes and real.dataset.classes:
        known = {name: k for k, name in enumerate(real.dataset.classes)}
        names = np.array([known.get(name, -1) for name in found.classes])
        column = np.asarray(found.columns["label"])[rows]
        labels = np.where(column >= 0, names[column], -1)
        labels = labels if (labels >= 0).any() else None
    texts = found.columns.get("text")
    return Judged(path.name, path, items, labels, None if texts is None else [str(t) for t in np.asarray(texts)[rows]])

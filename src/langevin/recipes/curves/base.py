"""What all curves share: what is measured, a point, a row of figures, and what follows from the rows."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from langevin.config import TrainConfig
from langevin.data.dataset import Dataset
from langevin.evaluation.figures import Figure
from langevin.evaluation.metrics.base import Estimate
from langevin.model import Model
from langevin.recipes.averages import Measured
from langevin.recipes.console import Console


@dataclass(frozen=True, eq=False)
class Subject:
    """A finished run, opened.

    Attributes:
        model: its own, as it was published.
        heed: called while one works; raises where that was asked for.
    """

    run: Path
    model: Model
    config: TrainConfig
    dataset: Dataset
    console: Console
    heed: Callable[[], None]


@dataclass(frozen=True, eq=False)
class Point:
    """Where a curve is measured.

    Attributes:
        x: its place on the axis.
        name: what stands in tables.
        model, settings: samples are `model.sample(**settings)`; the settings that are not given are the model's own.
        facts: more of the point, JSON-ready.
        weights: what was measured of its weights on held-out items, where they are not those of the run's model.
    """

    x: float
    name: str
    model: Model
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    weights: Measured | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """A point and what was found there.

    Attributes:
        x, name, settings, facts, weights: of the point.
        figures: by the first word of their names for those of the last features, else by their names.
        items: the samples, with their channel axis, item k from the same seed in all rows.
        seconds: a sample.
    """

    x: float
    name: str
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    weights: Measured | None
    figures: tuple[Figure, ...]
    items: np.ndarray
    seconds: float

    def figure(self, name: str) -> Figure | None:
        """The figure of this name in the last of the features; None where there is none."""
        return next((f for f in reversed(self.figures) if f.name.partition("[")[0] == name), None)

    @property
    def frechet(self) -> float:
        """The Frechet distance in the last of the features."""
        found = self.figure("frechet")
        return found.value if found else math.nan


Apart = Callable[[Row, Row], Estimate]
"""How far the Frechet distance of a row lies above that of another, from samples in pairs."""


@dataclass(frozen=True, eq=False)
class Advice:
    """What follows from a curve.

    Attributes:
        row: the one that is recommended.
        why: in words.
        setting: what is stored into the model's `sampling`; empty where nothing is.
        next: the command to type now.
    """

    row: Row
    why: str
    next: str
    setting: Mapping[str, Any] = field(default_factory=dict)


class Over(ABC):
    """A kind of curve; a frozen dataclass of its settings, without any."""

    axis: ClassVar[str]
    """What x is."""
    default: ClassVar[tuple[float, ...]] = ()
    """Where it is measured if nobody says."""
    log: ClassVar[bool] = False
    even: ClassVar[bool] = False
    """Whether points stand side by side, whatever their x."""
    panels: ClassVar[tuple[str, ...]] = ("frechet", "kernel", "precision", "recall")
    """First words of figures; also `seconds` and `held-out loss`."""

    @abstractmethod
    def check(self, run: Path, model: Model, at: Sequence[float]) -> None:
        """Raise UsageError where a curve of this model cannot be taken at these x."""

    @abstractmethod
    def points(self, of: Subject, at: Sequence[float]) -> Iterable[Point]:
        """The points by x, each made when it is asked for."""

    @abstractmethod
    def advise(self, of: Subject, rows: Sequence[Row], apart: Apart) -> Advice:
        """What the rows, at least one, say."""


def lowest(rows: Iterable[Row]) -> Row:
    """The row with the lowest Frechet distance; the first of equal ones."""
    return min(rows, key=lambda row: row.frechet)


def above(estimate: Estimate) -> str:
    """`0.31 ± 0.42 above`, or below."""
    return f"{abs(estimate.value):.3g} ± {estimate.error:.2g} {'above' if estimate.value >= 0 else 'below'}"

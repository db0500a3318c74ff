"""What may look on while a run trains: a watcher is called with each thing that happens, between two steps.

    Began -> (Stepped | Looked)* -> Trained -> Finished

A run that stops or fails leaves the row early. A watcher changes nothing in what it is shown; what it raises ends the run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from langevin.config import TrainConfig
from langevin.diffusion.times import TimeLaw
from langevin.evaluation.noise_levels import LevelLoss
from langevin.model import Model
from langevin.recipes.outcome import Run
from langevin.training import Metrics
from langevin.training.feed import Feed


@dataclass(frozen=True, eq=False)
class Began:
    """A sitting begins.

    Attributes:
        step, share: 0, or where it goes on; share of the budget.
        averaged: as of `Stepped`.
        law: the time law as the run began with it.
        unseen: held-out items in model space, (N, ...), and their conditions.
    """

    folder: Path
    config: TrainConfig
    model: Model
    feed: Feed
    law: TimeLaw
    unseen: tuple[Tensor, Mapping[str, Tensor]]
    step: int
    share: float
    averaged: Callable[[], Model]


@dataclass(frozen=True, eq=False)
class Stepped:
    """A step is done.

    Attributes:
        share: of the budget, 0 to 1.
        clock: what depends on the machine: images a second, bytes; see `pace`.
        averaged: gives the model with the first average of the weights.
    """

    metrics: Metrics
    share: float
    clock: Mapping[str, float]
    averaged: Callable[[], Model]


@dataclass(frozen=True, eq=False)
class Looked:
    """The held-out loss was measured.

    Attributes:
        sheet: of samples, from seeds that never change; None where none was drawn this time.
    """

    step: int
    level: LevelLoss
    sheet: Image.Image | None


@dataclass(frozen=True, eq=False)
class Trained:
    """The budget is spent and the best average chosen."""

    step: int
    level: LevelLoss


@dataclass(frozen=True, eq=False)
class Finished:
    """The model is published and measured; the folder holds everything."""

    step: int
    run: Run


Event = Began | Stepped | Looked | Trained | Finished
Watcher = Callable[[Event], None]

"""What every tracker can do. It may be slow and it may fail: `langevin.recipes.tracking` stands between it and the run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


class Tracker(ABC):
    """Made as `Tracker(folder, config, step)`, anew after a failure.

    Args:
        folder: the run's, in which a tracker may keep what it needs.
        config: the run's settings, ready for JSON.
        step: the last step that is done already; what was told of later ones is told again.
    """

    module: ClassVar[str]
    """The package that it needs, of the extra `track`; empty where it needs none."""

    @abstractmethod
    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None: ...

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name at a step; names are `group/name`."""

    @abstractmethod
    def image(self, step: int, name: str, array: np.ndarray) -> None:
        """A picture, uint8 (H, W, 3)."""

    @abstractmethod
    def done(self) -> None:
        """Nothing more will come."""

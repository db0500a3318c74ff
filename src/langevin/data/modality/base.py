"""Modalities: image, and whatever else has a file here. The name of a modality is its file's name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langevin.data.dataset import Dataset

if TYPE_CHECKING:  # torch is imported only when it is used
    from PIL import Image

    from langevin.data.codec.base import Codec


class Modality(ABC):
    """How one kind of data is read, turned into model space, written and shown. Has no state."""

    @abstractmethod
    def recognises(self, path: str | Path) -> bool:
        """Whether what lies at `path` is of this kind; looks, but does not read it all."""

    @abstractmethod
    def open(self, path: str | Path, **options: Any) -> Dataset:
        """Reads it. Raises DataError, RefusedError, DiskError or UsageError."""

    @abstractmethod
    def codec(self, dataset: Dataset) -> Codec:
        """The default codec for these data."""

    @abstractmethod
    def write(self, items: np.ndarray, path: str | Path, *, metadata: list[dict[str, Any]] | None = None) -> list[Path]:
        """Writes samples and gives the files made. Never overwrites: UsageError where `path` exists."""

    @abstractmethod
    def preview(self, items: np.ndarray, columns: int | None = None) -> Image.Image:
        """One picture by which a person can judge the items."""

"""Pictures: folders, zips, arrays, idx files and the built-in digits; written as PNG and .npz, shown in a grid."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langevin.data import cache as caches
from langevin.data.dataset import Dataset
from langevin.data.fit import Options
from langevin.data.modality.base import Modality
from langevin.data.png import read_metadata
from langevin.data.read import dataset as dataset_of
from langevin.data.show import grid
from langevin.data.sources.arrays import npy, npz
from langevin.data.sources.digits import digits, is_digits
from langevin.data.sources.folder import folder, zipped
from langevin.data.sources.idx import idx, is_idx
from langevin.data.write import write

__all__ = ["Image", "grid", "read_metadata", "write"]

if TYPE_CHECKING:
    from PIL import Image as Pillow

    from langevin.data.codec.pixels import Pixels


class Image(Modality):
    """Pictures of 1 to N channels, 8 or 16 bits or floating point."""

    def recognises(self, path: str | Path) -> bool:
        path = Path(path)
        if is_digits(path):
            return True
        return path.is_dir() or (path.is_file() and (path.suffix.lower() in (".npy", ".npz", ".zip") or is_idx(path)))

    def open(
        self,
        path: str | Path,
        *,
        size: int | tuple[int, int] | None = None,
        matte: str | None = None,
        fit: str = "crop",
        frames: str = "first",
        allow_rejects: float = 0.01,
        cache: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Dataset:
        options, path = Options.of(size, matte, fit, frames), Path(path)
        root = caches.root(cache)
        # what a decoder grumbles about is either a reject or harmless
        with warnings.catch_warnings(action="ignore"):
            if is_digits(path):
                return dataset_of(digits(), options, allow_rejects=allow_rejects, root=None, progress=progress)
            if is_idx(path):
                source = idx(path, root)
            elif path.is_dir():
                source = folder(path, root, progress)
            else:
                source = {".npy": npy, ".npz": npz, ".zip": zipped}[path.suffix.lower()](path, root)
            return dataset_of(source, options, allow_rejects=allow_rejects, root=root, progress=progress)

    def codec(self, dataset: Dataset) -> Pixels:
        from langevin.data.codec.pixels import Pixels

        dtype = str(dataset.items.dtype)
        low, high = dataset.audit.model_range if dtype == "float32" else (None, None)
        return Pixels(dtype=dtype, channels=dataset.shape[-1], low=low, high=high, squeeze=dataset.squeeze)

    def write(self, items: np.ndarray, path: str | Path, *, metadata: list[dict[str, Any]] | None = None) -> list[Path]:
        return write(items, path, metadata=metadata)

    def preview(self, items: np.ndarray, columns: int | None = None) -> Pillow.Image:
        return grid(items, columns)

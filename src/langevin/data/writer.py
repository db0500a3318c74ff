"""Items written to the cache in a stream, and what is to be known of them counted on the way."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from langevin.data import cache, duplicates
from langevin.data.layout import Layout

_AT_ONCE = 4 << 20  # bytes


class Writer:
    """Writes items to items.bin and keeps what is to be known of them."""

    def __init__(self, scratch: Path, layout: Layout) -> None:
        self.layout, self.scratch = layout, scratch
        self._path, self._looks = scratch / "items.bin", scratch / "looks.bin"
        self._path.write_bytes(b"")
        self._looks.write_bytes(b"")
        self._rows: list[np.ndarray] = []
        self._sums: list[np.ndarray] = []
        self.count = 0

    def append(self, items: np.ndarray, sources: Sequence[int], frames: Sequence[int]) -> None:
        """Items (n, H, W, C) in the layout's dtype; which source items they are, and which frames of them."""
        items = np.ascontiguousarray(items)
        assert items.shape[1:] == self.layout.shape
        assert items.dtype == self.layout.dtype
        for start in range(0, len(items), step := max(1, _AT_ONCE // self.layout.bytes)):
            run = slice(start, start + step)
            self._append(items[run], sources[run], frames[run])

    def _append(self, items: np.ndarray, sources: Sequence[int], frames: Sequence[int]) -> None:
        rows = np.zeros(len(items), cache.ROW)
        rows["source"], rows["frame"] = sources, frames
        rows["digest"] = [np.frombuffer(hashlib.sha256(item).digest(), np.uint8) for item in items]
        self._rows.append(rows)
        exact = [channel.astype(np.float64).ravel() for channel in np.moveaxis(items, -1, 0)]
        self._sums.append(np.array([[x.min(), x.max(), x.sum(), x @ x] for x in exact]).T)
        if self.count < duplicates.MOST:
            looks = duplicates.thumbnails(items, alpha=self.layout.alpha)
            with self._looks.open("ab") as file:
                file.write(looks.data)
        with self._path.open("ab") as file:
            file.write(items.data)
        self.count += len(items)

    def without_alpha(self, channels: int) -> "Writer":
        """A writer that holds the same items with their first 1 or 3 channels alone."""
        wide = self._path.rename(self.scratch / "wide.bin")
        writer = Writer(self.scratch, replace(self.layout, channels=channels, alpha=False))
        rows = np.concatenate(self._rows)
        items = np.memmap(wide, self.layout.dtype, "r", shape=(len(rows), *self.layout.shape))
        for start in range(0, len(rows), 1024):
            run = slice(start, start + 1024)
            writer.append(items[run, ..., :channels], rows["source"][run].tolist(), rows["frame"][run].tolist())
        wide.unlink()
        return writer

    def close(self, **facts: Any) -> None:
        """Finishes the entry: rows and facts, with what was counted added to them."""
        layout, shape = self.layout, self.layout.shape
        rows = np.concatenate([np.zeros(0, cache.ROW), *self._rows])
        facts |= {"shape": list(shape), "dtype": layout.dtype, "alpha": layout.alpha}
        if self.count:
            sums, pixels = np.stack(self._sums), self.count * shape[0] * shape[1]
            mean = sums[:, 2].sum(0) / pixels
            facts["low"], facts["high"] = sums[:, 0].min(0).tolist(), sums[:, 1].max(0).tolist()
            facts["mean"] = mean.tolist()
            facts["std"] = np.sqrt(np.maximum(sums[:, 3].sum(0) / pixels - mean**2, 0)).tolist()
            look = duplicates.look_shape(layout.channels)
            searched = self.count <= duplicates.MOST
            looks = np.memmap(self._looks, np.float32, "r", shape=(self.count, *look)) if searched else None
            facts["alike"] = duplicates.alike(rows["digest"], looks)
        self._looks.unlink()
        cache.finish(self.scratch, rows, facts)

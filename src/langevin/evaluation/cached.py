"""What depends on real items alone, kept on disk between evaluations: under a key that is a hash of all that it follows from.

    <cache>/figures/<key>.safetensors

A file that is damaged or of another kind is made again. The least recently used ones go when all together exceed a gigabyte.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from langevin.data import cache
from langevin.errors import LangevinError
from langevin.store import read_tensors, write_file, write_tensors

Arrays = Mapping[str, NDArray[np.generic]]
MOST_BYTES = 1 << 30


def key_of(*parts: object) -> str:
    """A key of texts and hashes."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


@dataclass(frozen=True)
class Kept:
    """A folder of results; None keeps nothing."""

    folder: Path | None = None

    @staticmethod
    def usual() -> "Kept":
        """In the cache of decoded pictures."""
        return Kept(cache.root(None) / "figures")

    def get(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        """What was kept under `key`, or else what `make` gives, which is kept then. A disk that refuses loses nothing but time."""
        if self.folder is None:
            return make()
        path = self.folder / f"{key}.safetensors"
        if path.is_file():
            with suppress(LangevinError):
                found = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
                with suppress(OSError):
                    path.touch()
                return found
        made = make()
        with suppress(LangevinError, OSError):
            self._keep(path, made)
        return made

    def _keep(self, path: Path, arrays: Arrays) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        write_tensors(fresh, {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()})
        write_file(path, fresh.read_bytes())
        fresh.unlink()
        files = sorted(path.parent.glob("*.safetensors"), key=lambda f: f.stat().st_mtime, reverse=True)
        total = 0
        for file in files:
            total += file.stat().st_size
            if total > MOST_BYTES and file != path:
                file.unlink()

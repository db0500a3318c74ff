"""Samples on disk: one PNG, an .npz, or a folder of numbered PNGs. Nothing is overwritten, nothing half written shows."""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from langevin.data import png
from langevin.data.show import grid
from langevin.disk import disk_errors
from langevin.errors import UsageError
from langevin.words import counted


def write(items: np.ndarray, path: str | Path, *, metadata: list[dict[str, Any]] | None = None) -> list[Path]:
    """Items (N, H, W[, C]) to `path`, by its ending; gives the files made.

    ".png": the one picture as it is, or a grid of all, for looking at. ".npz": `images` as they are, and `metadata` as
    JSON. No ending: a folder of numbered PNGs with every level, uint8 or uint16.

    Args:
        metadata: one dict a picture; kept in each PNG, in a grid as {"pictures": [...]}.

    Raises:
        UsageError: `path` exists, or the items cannot be written so. DiskError: no room.
    """
    items, path = np.asarray(items), Path(path)
    if metadata is not None and len(metadata) != len(items):
        raise UsageError(f"{counted(len(metadata), 'recipe')} for {counted(len(items), 'picture')}", where="metadata")
    if os.path.lexists(path):
        raise UsageError("already there, and nothing is overwritten", where=str(path), help="choose another name")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        _publish(path, lambda file: file.write_bytes(_npz(items, metadata)))
        return [path]
    if suffix == ".png":
        recipe = None if metadata is None else metadata[0] if len(items) == 1 else {"pictures": metadata}
        exact = len(items) == 1 and _fits_png(items)
        picture = _with_channels(items)[0] if exact else np.asarray(grid(items))
        _publish(path, lambda file: file.write_bytes(png.encoded(picture, recipe)))
        return [path]
    if suffix:
        raise UsageError(f"pictures are not written as {suffix}", where=str(path), help="use .png, .npz or a folder")
    if not _fits_png(items):
        raise UsageError(
            f"PNG cannot hold {items.dtype} of shape {items.shape[1:]}", where=str(path), help=f"write {path}.npz"
        )
    names = [f"{k:0{max(5, len(str(len(items))))}d}.png" for k in range(len(items))]

    def fill(folder: Path) -> None:
        folder.mkdir()
        for k, (name, picture) in enumerate(zip(names, _with_channels(items), strict=True)):
            (folder / name).write_bytes(png.encoded(picture, metadata[k] if metadata is not None else None))

    _publish(path, fill)
    return [path / name for name in names]


def _with_channels(items: np.ndarray) -> np.ndarray:
    return items[..., None] if items.ndim == 3 else items


def _fits_png(items: np.ndarray) -> bool:
    return items.dtype in (np.uint8, np.uint16) and _with_channels(items).shape[-1] in (1, 3, 4)


def _npz(items: np.ndarray, metadata: list[dict[str, Any]] | None) -> bytes:
    out = io.BytesIO()
    recipes = {} if metadata is None else {"metadata": np.array([json.dumps(m, default=str) for m in metadata])}
    labels = [] if metadata is None else [m.get("label") for m in metadata]
    if labels and all(isinstance(label, int) for label in labels):
        recipes["labels"] = np.array(labels, np.int64)
    np.savez_compressed(out, images=items, **recipes)
    return out.getvalue()


def _publish(path: Path, fill: Callable[[Path], Any]) -> None:
    """Fills a file or folder beside its place and moves it there when it is whole."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=path.parent))
        try:
            made = scratch / "made"
            fill(made)
            try:
                made.rename(path) if made.is_dir() else os.link(made, path)
            except FileExistsError:
                raise UsageError(
                    "already there, and nothing is overwritten", where=str(path), help="choose another name"
                ) from None
            except OSError:  # a file system without links
                if os.path.lexists(path):
                    raise
                made.rename(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

"""Data: open what lies at a path, look at it, and hand it to a model in an order that depends on the seed alone.

dataset = langevin.data.open("photos/", size=64)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from langevin import registry
from langevin.data.dataset import Audit, Dataset, Reject
from langevin.data.modality.base import Modality
from langevin.errors import UsageError, nearest

__all__ = ["Audit", "Dataset", "Reject", "open"]


def open(
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
    """Reads the data at `path`, or the built-in set of that name, whatever kind of data it is.

    Args:
        size: side of the pictures, or (height, width). None keeps the size where all share it, else chooses one.
        matte: colour put behind transparent pictures; None keeps transparency as a fourth channel.
        fit: "crop", "pad" or "skip": what becomes of pictures that have another size.
        frames: "first" or "all" frames of an animation.
        allow_rejects: fraction of the items that may be unusable before it is an error.
        cache: folder for decoded items; None: $LANGEVIN_CACHE, else ~/.cache/langevin.
        progress: called with (done, total) while items are read.

    Raises:
        UsageError: nothing there, or nothing that any modality reads. DataError: too much of it is unusable.
        RefusedError: a file that could run code or is damaged. DiskError: no room for the decoded items.
    """
    modalities = registry.names("langevin.data.modality", Modality)
    for modality in (kind() for kind in modalities.values()):
        if modality.recognises(path):
            return modality.open(
                path,
                size=size,
                matte=matte,
                fit=fit,
                frames=frames,
                allow_rejects=allow_rejects,
                cache=cache,
                progress=progress,
            )
    if not Path(path).exists():
        beside = [p.name for p in Path(path).parent.iterdir()] if Path(path).parent.is_dir() else []
        raise UsageError(
            "nothing lies there", where=str(path), help=nearest(Path(path).name, [*beside[:10_000], "digits"])
        )
    raise UsageError(
        "no kind of data that is read here",
        where=str(path),
        help="a folder or .zip of pictures, an array (.npy, .npz), idx files, or `digits`",
    )

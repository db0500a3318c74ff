"""A set of pictures (or of anything else that has items): the items in their own dtype, their columns, their split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from langevin.errors import DataError
from langevin.words import counted


class Reject(NamedTuple):
    """An item that was left out, and why: `code` is one word in capitals, `detail` says it for a person."""

    name: str
    code: str
    detail: str


@dataclass(frozen=True)
class Audit:
    """What was found while the data were read. Nothing in it changes the data; `langevin.data.audit.report` prints it."""

    source: str
    kind: str  # "folder", "zip", "npz", "npy", "idx", "built-in"
    count: int
    shape: tuple[int, ...]  # (H, W, C) of an item
    dtype: str
    low: tuple[float, ...]  # per channel, in the data's own range
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sizes: Mapping[str, int]  # "widthxheight" as found -> how many
    transparency: bool = False  # the fourth channel is alpha
    class_counts: Mapping[str, int] = field(default_factory=dict)
    rejects: tuple[Reject, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)  # kind of file that is no picture -> how many
    notes: tuple[str, ...] = ()
    official_split: bool = False
    exact_duplicates: int = 0  # items that repeat an earlier one, pixel for pixel
    near_duplicates: tuple[tuple[int, int], ...] = ()  # pairs of items that look alike but are not equal
    leaks: int = 0  # pairs, equal or alike, with one side in training and the other held out

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def model_range(self) -> tuple[float, float]:
        """What becomes [-1, 1]: the whole range of integers; for floats (0, 1) or (-1, 1) where the data fill most of
        it, else their own extremes."""
        if self.dtype != "float32":
            return 0.0, float(np.iinfo(self.dtype).max)
        low, high = min(self.low), max(self.high)
        for a, b in ((0.0, 1.0), (-1.0, 1.0)):
            if a <= low and high <= b and high - low > 0.75 * (b - a):
                return a, b
        return (low, high) if high > low else (low - 1.0, low + 1.0)

    @property
    def constant_channels(self) -> tuple[int, ...]:
        """Channels that have one value over the whole set: a network learns nothing from them."""
        return tuple(c for c, (low, high) in enumerate(zip(self.low, self.high, strict=True)) if low == high)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Items and their columns.

    Args:
        items: (N, H, W, C), uint8, uint16 or float32, in the data's own range; usually a read-only memory map.
        columns: each (N,). "label": int64 class index, -1 = missing, where there are classes; "text": str.
        classes: names of the label values, () without labels.
        names: where each item came from, relative to the source.
        held_out: (N,) bool; items that are never trained on.
        fingerprint: sha256 (hex) of the items in their order, their columns and the class names. File times and the
            order in which a folder lists its files have no part in it.
        squeeze: the source had no channel axis, (N, H, W): samples are given back so.
    """

    items: np.ndarray
    columns: Mapping[str, np.ndarray]
    classes: tuple[str, ...]
    names: Sequence[str]
    held_out: np.ndarray
    fingerprint: str
    audit: Audit
    modality: str = "image"
    squeeze: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of an item."""
        return tuple(self.items.shape[1:])

    @property
    def train_indices(self) -> np.ndarray:
        return np.flatnonzero(~self.held_out)

    @property
    def held_out_indices(self) -> np.ndarray:
        return np.flatnonzero(self.held_out)

    def unlabelled(self) -> "Dataset":
        """The same items without their classes."""
        return replace(self, columns={k: v for k, v in self.columns.items() if k != "label"}, classes=())

    def take(self, rows: np.ndarray) -> np.ndarray:
        """A copy (n, H, W, C) of these items.

        Raises DataError where the decoded items on disk were cut short: to read on would end the process with SIGBUS. A
        file that was deleted is there until the run ends.
        """
        mapped = getattr(self.items, "_mmap", None)
        try:
            whole = mapped is None or mapped.size() >= self.items.nbytes
        except OSError:
            whole = False
        if not whole:
            raise DataError(
                "the decoded items were cut short while they were in use",
                where=str(getattr(self.items, "filename", "")),
                help="the same command decodes them again; nothing else may write to the cache",
            )
        return np.array(self.items[rows])

    def require(self, count: int, what: str = "one batch") -> None:
        """Raises DataError where fewer than `count` items are left to train on."""
        have = len(self.train_indices)
        if have < count:
            raise DataError(
                f"{counted(have, 'item')} to train on, but {what} needs {count} "
                f"({len(self)} read, {len(self) - have} held out, {len(self.audit.rejects)} rejected)",
                where=self.audit.source,
                help=f"add data, or ask for at most {have}",
            )

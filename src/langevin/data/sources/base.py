"""What every source gives: names, columns, a key for the contents, and either encoded pictures or an array in blocks."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langevin.data.dataset import Reject


class Unusable(Exception):
    """One item that cannot be used; becomes a `Reject`. Never reaches a user."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True)
class Encoded:
    """Picture files, read one at a time. `read(i)` gives the bytes of item i or raises Unusable.

    `headers` holds what is already known of them: a `Header` or the `Unusable` that reading it raised.
    """

    read: Callable[[int], bytes]
    headers: Sequence[Any] | None = None


@dataclass(frozen=True)
class Blocks:
    """An array, read in runs of items. `read()` starts anew each time; blocks are (n, H, W) or (n, H, W, C)."""

    read: Callable[[], Iterator[np.ndarray]]
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Source:
    """A place with pictures, looked at but not yet decoded.

    Args:
        key: sha256 (hex) of the bytes of the pictures; equal keys decode to equal pictures.
        columns: each (N,), for all items listed, usable or not.
        held_out: (N,) bool where the source itself says which items are held out.
    """

    where: str
    kind: str
    names: Sequence[str]
    pictures: Encoded | Blocks
    key: str
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    held_out: np.ndarray | None = None
    rejects: tuple[Reject, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()
    squeeze: bool = False

"""Arrays read from a stream in runs of items, never more at once than a block, never more than the file can hold."""

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO

import numpy as np

from langevin.data.sources.base import Blocks
from langevin.errors import LangevinError, RefusedError

_BLOCK = 4 << 20  # bytes
_DEFLATE = 1_100  # no deflate stream grows by more than 1,032


@contextmanager
def damage_refused(where: str) -> Iterator[None]:
    """What the readers of zips, gzips and array headers raise at a damaged file becomes a RefusedError."""
    try:
        yield
    except LangevinError:
        raise
    except (
        zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, LookupError, SyntaxError, tokenize.TokenError,
        NotImplementedError, RuntimeError, MemoryError, OverflowError, TypeError,
    ) as error:  # fmt: skip
        raise RefusedError(
            f"damaged: {str(error).partition(chr(10))[0] or type(error).__name__}", where=where
        ) from None


def stream(
    opened: Callable[[], AbstractContextManager[IO[bytes]]],
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    where: str,
    stored: int,
    fortran: bool = False,
) -> Blocks:
    """Blocks of an array whose values start where `opened` leaves the file; `stored`: bytes of the file on the disk.

    Raises RefusedError where the shape is more than a file of that length can hold, or the file ends too early.
    """
    each = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
    count = shape[0] if shape else 1
    if min(shape, default=0) < 0 or count * max(each, 1) > _DEFLATE * stored:
        raise RefusedError(f"says it holds {shape} of {dtype}, which {stored:,} bytes cannot", where=where)

    def read() -> Iterator[np.ndarray]:
        with damage_refused(where), opened() as file:
            if fortran:  # the first axis is the fastest: there is no stream of items
                yield np.frombuffer(taken(file, count * each, where), dtype).reshape(shape, order="F")
                return
            step = max(1, _BLOCK // max(each, 1))
            for start in range(0, count, step):
                n = min(step, count - start)
                yield np.frombuffer(taken(file, n * each, where), dtype).reshape(n, *shape[1:])

    return Blocks(read, shape, dtype)


def taken(file: IO[bytes], size: int, where: str) -> bytes:
    """Exactly `size` bytes. Raises RefusedError where the file is damaged or ends before."""
    with damage_refused(where):
        data = file.read(size)
    if len(data) != size:
        raise RefusedError("ends before its header says", where=where)
    return data


def whole(blocks: Blocks) -> np.ndarray:
    """All of it."""
    return np.concatenate([np.zeros((0, *blocks.shape[1:]), blocks.dtype), *blocks.read()])

"""The one shape that all pictures of a set get, and how a picture is brought to it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from langevin.data.fit import Options, composed, fitted
from langevin.data.pictures import Header, decode
from langevin.data.sanity import first_broken
from langevin.data.sources.base import Unusable


@dataclass(frozen=True)
class Layout:
    """The shape that all items get. `alpha`: the last of four channels is transparency."""

    height: int
    width: int
    channels: int
    dtype: str
    alpha: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def bytes(self) -> int:
        """Of one item."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def top(self) -> int:
        """The largest level; 1 for floats."""
        return {"uint8": 255, "uint16": 65535}.get(self.dtype, 1)


def laid_out(data: bytes, head: Header, layout: Layout, options: Options) -> Iterator[np.ndarray]:
    """A picture's frames in the layout: channels, depth and size."""
    size = layout.height, layout.width
    resize = (head.height, head.width) != size
    every = options.frames == "all" and head.frames > 1
    for picture in decode(data, every_frame=every, at_least=2 * max(size) if resize else None):
        if picture.dtype.kind == "f" and not np.isfinite(picture).all():
            raise Unusable("NOT_FINITE", first_broken(picture if picture.ndim == 3 else picture[..., None]))
        picture = _deepened(picture, layout.dtype)
        clear = picture.shape[2] == 4
        matte = options.matte or (0, 0, 0)
        fill = np.array([0] * 4 if clear else matte) * (layout.top // 255)
        picture = fitted(picture, size, options.fit, fill[: picture.shape[2]], alpha=clear)
        if clear and not layout.alpha:
            picture = composed(picture, matte)
        channels = picture.shape[2]
        if channels < layout.channels:
            full = np.full((*size, 1), layout.top, layout.dtype)
            picture = np.dstack([picture] * (3 if channels == 1 else 1) + [full] * layout.alpha)
        elif channels > layout.channels:  # grey in three channels, from a grey picture put on a grey matte
            picture = picture[..., :1]
        yield cleared(picture) if layout.alpha else picture


def cleared(pictures: np.ndarray) -> np.ndarray:
    """RGBA with colour 0 wherever alpha is 0: what cannot be seen is nothing to learn."""
    return np.where(pictures[..., 3:] == 0, np.zeros((), pictures.dtype), pictures)


def _deepened(picture: np.ndarray, dtype: str) -> np.ndarray:
    """8 bits as 16: times 257, so that white stays white and all levels stay apart."""
    if picture.dtype == dtype:
        return picture
    if dtype == "float32":
        raise Unusable("UNSUPPORTED", "whole-number levels among pictures of floating-point levels")
    return picture.astype(np.uint16) * np.uint16(257)

"""Features of items that need no download: the same numbers on every machine, fitted on real training data alone.

`Pca` describes an item by its own values, pictures averaged down to 32 x 32 at most; `Gradients` describes a picture
by a fixed classical descriptor. Either description is then projected on its leading principal components, fitted on
training items, so that the dimension stays below the count and covariances are regular. They are no FID features:
figures taken in them carry their names and compare with each other only.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from langevin.errors import DataError

Array = NDArray[np.float64]
Items = NDArray[Any]

FIT_ITEMS = 20_000  # a basis is fitted on that many training items at most, evenly spaced
LEAST_SCALE = 0.2  # of the median: what hardly varies in training is not blown up to a full unit
CHUNK_VALUES = 2**21  # values described at once


def as_unit(items: Items) -> Array:
    """float64 of any item array: unsigned integers and booleans are scaled to [0, 1], floats are taken as they are."""
    items = np.asarray(items)
    if items.dtype.kind == "u":
        return items.astype(np.float64) / np.iinfo(items.dtype).max
    if items.dtype.kind in "bf":
        return items.astype(np.float64)
    raise DataError(
        f"items of type {items.dtype} have no known range", help="unsigned integers, booleans and floats are read"
    )


def content(items: Items) -> str:
    """sha256 of an array's values, type and shape."""
    digest = hashlib.sha256(f"{items.dtype.str} {items.shape}".encode())
    for start in range(0, len(items), 1024):  # may be a memory map larger than memory
        digest.update(np.ascontiguousarray(items[start : start + 1024]).data)
    return digest.hexdigest()


def pooled(items: Items, most: int) -> Array:
    """Pictures (N, H, W, C) as float64 with sides of at most `most`, averaged down; anything else as it is."""
    values = as_unit(items)
    if values.ndim != 4 or max(values.shape[1:3]) <= most:
        return values
    small = _pool(np.moveaxis(values, -1, 1), min(values.shape[1], most), min(values.shape[2], most))
    return np.moveaxis(small, 1, -1)


def _area(size: int, cells: int) -> Array:
    """(cells, size) matrix that averages `size` pixels into `cells` equal cells; pixels on a border count in part."""
    edges, pixels = np.arange(cells + 1) * (size / cells), np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) * (cells / size))


def _pool(maps: Array, height: int, width: int) -> Array:
    """(..., H, W) -> (..., height, width) by area averaging."""
    return np.asarray(_area(maps.shape[-2], height) @ maps @ _area(maps.shape[-1], width).T)


class Features(ABC):
    """Numbers that describe an item.

    name: under which figures are printed; dim: how many numbers describe an item; digest: sha256 of the definition and of all
    that its parameters follow from; frechet_name: what a Frechet distance in them is called, frechet[name] where it is empty.
    """

    name: str
    dim: int
    digest: str
    frechet_name: str = ""

    @abstractmethod
    def __call__(self, items: Items) -> Array:
        """Items (N, ...) -> features (N, dim) float64."""


@dataclass(frozen=True, eq=False)
class Classical(Features):
    """A description of items on its leading principal components. Made by `fit`, used as `features(items)`.

    center, scale: (D,) mean and unit of every described value over the training items.
    basis: (D, d) orthonormal columns, variance falling, the largest entry of each positive.
    """

    definition: ClassVar[str]
    standardised: ClassVar[bool]

    center: Array
    scale: Array
    basis: Array
    digest: str

    @staticmethod
    @abstractmethod
    def describe(items: Items) -> Array:
        """Items (N, ...) in their own type -> their description (N, D)."""

    @classmethod
    def fit(cls, items: Items, max_dim: int = 64) -> Self:
        """Fits on real training items (N, ...), N >= 2; at most max_dim dimensions, fewer than N and D always."""
        items = np.asarray(items)
        if len(items) < 2:
            raise DataError(f"features are fitted on two items at least, not {len(items)}")
        chosen = items[np.linspace(0, len(items) - 1, min(len(items), FIT_ITEMS)).astype(int)]
        count, total, second = 0, np.zeros(1), np.zeros((1, 1))
        origin = cls.describe(chosen[:1])[0]  # moments about one item: no cancellation when the mean is large
        for part in cls._parts(chosen):
            part -= origin
            count, total, second = count + len(part), total + part.sum(0), second + part.T @ part
        mean = total / count
        cov = (second - count * np.outer(mean, mean)) / (count - 1)
        deviation = np.sqrt(np.clip(np.diag(cov), 0, None))
        alive = deviation[deviation > 1e-9 * deviation.max()]
        least = LEAST_SCALE * float(np.median(alive)) if len(alive) else 1.0
        scale = np.maximum(deviation, least) if cls.standardised else np.ones_like(deviation)
        dim = max(1, min(max_dim, len(cov), count - 1))
        _, basis = scipy.linalg.eigh(cov / np.outer(scale, scale), subset_by_index=[len(cov) - dim, len(cov) - 1])
        basis = basis[:, ::-1]
        basis = basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(dim)])
        described = f"{cls.name}: {cls.definition}; dim {dim}; {items.dtype.str} {items.shape}"
        digest = hashlib.sha256(described.encode() + content(items).encode())
        return cls(origin + mean, scale, basis, digest.hexdigest())

    @property
    def dim(self) -> int:  # type: ignore[override]
        return int(self.basis.shape[1])

    def __call__(self, items: Items) -> Array:
        """Items (N, ...) like those it was fitted on -> features (N, d) float64."""
        items = np.asarray(items)
        return np.concatenate(
            [((part - self.center) / self.scale) @ self.basis for part in self._parts(items)]
            or [np.empty((0, self.dim))]
        )

    @classmethod
    def _parts(cls, items: Items) -> Iterator[Array]:
        step = max(1, CHUNK_VALUES // max(1, int(np.prod(items.shape[1:]))))
        for start in range(0, len(items), step):
            yield cls.describe(items[start : start + step])


class Pca(Classical):
    """The item's own values. Pictures (N, H, W, C) beyond 32 pixels a side are averaged down to 32; else (N, ...)."""

    name = "pca"
    definition = "values, sides of pictures above 32 averaged to 32, principal components, 1"
    standardised = False

    @staticmethod
    def describe(items: Items) -> Array:
        values = pooled(items, 32)
        return values.reshape(len(values), -1)


class Gradients(Classical):
    """Oriented gradients and colour of pictures (N, H, W, C) from 8 x 8 on.

    With g the gradient of the intensity (mean of the channels) and u_k eight unit vectors at k * 45 degrees, the mean of
    max(0, g . u_k) over each cell of a 4 x 4 grid, and over each cell of a 2 x 2 grid of the picture at half its size;
    and mean and standard deviation of every channel over each cell of the 4 x 4 grid. (Dalal and Triggs 2005,
    "Histograms of oriented gradients", with a cosine in place of hard bins.) D = 160 + 32 C, each in units of its
    standard deviation over the training items, or of a fifth of the median one where that is more.
    """

    name = "gradients"
    definition = "8 directions on 4x4 cells and on 2x2 at half size, mean and std on 4x4, by max(std, median / 5), 1"
    standardised = True

    @staticmethod
    def describe(items: Items) -> Array:
        if items.ndim != 4 or min(items.shape[1:3]) < 8:
            raise DataError(f"gradients describe pictures (N, H, W, C) from 8 x 8 on, not {items.shape}")
        channels = np.moveaxis(as_unit(items), -1, 1)  # (N, C, H, W)
        full = channels.mean(1)
        half = _pool(full, (full.shape[1] + 1) // 2, (full.shape[2] + 1) // 2)
        mean = _pool(channels, 4, 4)
        std = np.sqrt(np.clip(_pool(channels**2, 4, 4) - mean**2, 0, None))
        parts = (_oriented(full, 4), _oriented(half, 2), mean, std)
        return np.concatenate([p.reshape(len(items), -1) for p in parts], axis=1)


def _oriented(intensity: Array, cells: int) -> Array:
    """(N, H, W) -> (N, 8, cells, cells): mean rectified slope in the directions k * 45 degrees, k = 0 towards +x."""
    dy, dx = np.gradient(intensity, axis=(1, 2))
    diagonal, anti = (dx + dy) * np.sqrt(0.5), (dy - dx) * np.sqrt(0.5)
    slopes = [_pool(np.maximum(s, 0), cells, cells) for s in (dx, diagonal, dy, anti)]
    against = [along - _pool(s, cells, cells) for along, s in zip(slopes, (dx, diagonal, dy, anti), strict=True)]
    return np.stack(slopes + against, axis=1)

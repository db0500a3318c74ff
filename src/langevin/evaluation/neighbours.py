"""Nearest training items: are the samples new, or the training set said again?"""

from collections.abc import Callable
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langevin.evaluation.features import Array, Items, as_unit

AXES, SOME, LARGE = 128, 2_000, 2**24
"""Of the screen of long rows: its axes, the rows they are found from, and pairs of rows below which it does not pay."""


class Neighbours(NamedTuple):
    """index: (n, k) nearest first; distance: (n, k) Euclidean."""

    index: NDArray[np.intp]  # type: ignore[assignment]
    distance: Array


def neighbours(
    asked: Array, known: Items, num: int, chunk: int = 2**22, values: Callable[[Items], Array] = np.asarray
) -> Neighbours:
    """The `num` nearest rows of known (m, d) for each row of asked (n, d); fewer where there are fewer.

    The search is in float32 about the mean, so that of two neighbours equal to about 1e-3 in distance either may be named; the
    distances are those of the ones named, in the type that the values have. Memory: `asked` in float32, and a few times `chunk`
    numbers.

    Rows of many values are screened first: with p their components along `AXES` axes and r the length of the rest, |p - p'|^2 +
    (r - r')^2 is never more than |x - x'|^2. Only where candidates so found do not settle it all rows are looked at in full.

    Args:
        values: makes rows (k, d) of a part of `known`, which may then be items of any kind.
    """
    candidates = 4 * num + 16
    if asked.shape[1] < 4 * AXES or len(asked) * len(known) < LARGE or len(known) <= candidates:
        return _search(asked, known, num, chunk, values)
    some = np.asarray(values(known[np.linspace(0, len(known) - 1, SOME).astype(int)]), np.float64)
    center = some.mean(0)
    axes = np.linalg.svd(some - center, full_matrices=False)[2][:AXES].T

    def screened(rows: Array) -> Array:
        moved = np.asarray(rows, np.float32) - center.astype(np.float32)
        along = moved @ axes.astype(np.float32)
        rest = np.einsum("ij,ij->i", moved, moved) - np.einsum("ij,ij->i", along, along)
        return np.hstack([along, np.sqrt(np.maximum(rest, 0))[:, None]])

    least = _search(screened(asked), known, candidates, chunk, lambda part: screened(values(part)))
    found = _nearest_first(asked, known, least.index, chunk, values)
    index, distance = found.index[:, :num].copy(), found.distance[:, :num].copy()
    open_rows = np.flatnonzero(distance[:, -1] > (1 - 1e-3) * least.distance[:, -1])
    if len(open_rows):
        index[open_rows], distance[open_rows] = _search(asked[open_rows], known, num, chunk, values)
    return Neighbours(index, distance)


def _search(asked: Array, known: Items, num: int, chunk: int, values: Callable[[Items], Array]) -> Neighbours:
    """All with all, by products."""
    import torch  # partial sorting by two threads: numpy's would take longer than the products

    num, some = min(num, len(known)), np.asarray(values(known[:1000]), np.float64)
    center = some.mean(0)
    _, exponent = np.frexp(np.abs(some - center).max(initial=0.0))  # squares of float32 have half the range
    scale = np.ldexp(1.0, -int(exponent))

    def shown(rows: Array) -> torch.Tensor:
        return torch.from_numpy(np.asarray((rows - center) * scale, np.float32))

    width = max(1, isqrt(chunk))
    blocks = [slice(i, i + width) for i in range(0, len(asked), width)]
    sought = [shown(asked[rows]) for rows in blocks]
    least = torch.full((len(asked), num), torch.inf)
    index = torch.zeros(len(asked), num, dtype=torch.int64)
    for start in range(0, len(known), width):
        part = shown(values(known[start : start + width]))
        lengths, most = (part * part).sum(1), min(num, len(part))
        for rows, block in zip(blocks, sought, strict=True):
            # squared distance less |block|^2
            gap, found = torch.addmm(lengths, block, part.T, alpha=-2).topk(most, dim=1, largest=False)
            least[rows], kept = torch.cat([least[rows], gap], 1).topk(num, dim=1, largest=False)
            index[rows] = torch.cat([index[rows], start + found], 1).gather(1, kept)
    return _nearest_first(asked, known, index.numpy(), chunk, values)


def _nearest_first(
    asked: Array, known: Items, index: NDArray[np.int64], chunk: int, values: Callable[[Items], Array]
) -> Neighbours:
    """Neighbours index (n, k) in the order of their distances, which are taken one by one."""
    import torch

    distance = np.empty(index.shape)
    step = max(1, chunk // max(1, index.shape[1] * asked.shape[1]))
    for rows in (slice(i, i + step) for i in range(0, len(asked), step)):
        one = index[rows]
        near = torch.from_numpy(values(known[one.ravel()])).view(*one.shape, -1)
        away = torch.from_numpy(np.ascontiguousarray(asked[rows]))[:, None] - near
        distance[rows] = torch.linalg.vector_norm(away, dim=2, dtype=torch.float64)
    order = distance.argsort(1, kind="stable")
    return Neighbours(np.take_along_axis(index, order, 1).astype(np.intp), np.take_along_axis(distance, order, 1))


def nearest(items: Items, train: Items) -> tuple[NDArray[np.intp], Array]:
    """For items (n, ...) the index (n,) of the nearest of the training items (m, ...) and its distance (n,).

    Euclidean in the items' own values, unsigned integers as [0, 1].
    """

    def values(part: Items) -> Array:
        return as_unit(part).reshape(len(part), -1)

    found = neighbours(values(items), train, 1, values=values)
    return found.index[:, 0], found.distance[:, 0]

"""Nearest training items: are the samples new, or the training set said again?"""

from collections.abc import Callable
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langevin.evaluation.features import Array, Items, as_unit


class Neighbours(NamedTuple):
    """index: (n, k) nearest first; distance: (n, k) Euclidean."""

    index: NDArray[np.intp]
    distance: Array


def neighbours(
    asked: Array, known: Items, num: int, chunk: int = 2**24, values: Callable[[Items], Array] = np.asarray
) -> Neighbours:
    """The `num` nearest rows of known (m, d) for each row of asked (n, d); fewer where there are fewer.

    The search is in float32 about the mean, so that of two neighbours equal to about 1e-3 in distance either may be named; the
    distances are those of the ones named, in the type that the values have. Memory: `asked` in float32, and a few times `chunk`
    numbers.

    Args:
        values: makes rows (k, d) of a part of `known`, which may then be items of any kind.
    """
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
    distance = torch.empty(len(asked), num, dtype=torch.float64)
    step = max(1, chunk // max(1, num * asked.shape[1]))
    for rows in (slice(i, i + step) for i in range(0, len(asked), step)):
        one = index[rows]
        near = torch.from_numpy(values(known[one.flatten().numpy()])).view(*one.shape, -1)
        away = torch.from_numpy(np.ascontiguousarray(asked[rows]))[:, None] - near
        distance[rows] = torch.linalg.vector_norm(away, dim=2, dtype=torch.float64)
    order = distance.argsort(stable=True, dim=1)
    return Neighbours(index.gather(1, order).numpy().astype(np.intp), distance.gather(1, order).numpy())


def nearest(items: Items, train: Items) -> tuple[NDArray[np.intp], Array]:
    """For items (n, ...) the index (n,) of the nearest of the training items (m, ...) and its distance (n,).

    Euclidean in the items' own values, unsigned integers as [0, 1].
    """

    def values(part: Items) -> Array:
        return as_unit(part).reshape(len(part), -1)

    found = neighbours(values(items), train, 1, values=values)
    return found.index[:, 0], found.distance[:, 0]

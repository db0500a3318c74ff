"""Nearest training items: are the samples new, or the training set said again?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langevin.evaluation.features import Array, Items, as_unit


class Neighbours(NamedTuple):
    """index: (n, k) nearest first; distance: (n, k) Euclidean."""

    index: NDArray[np.intp]
    distance: Array


def neighbours(asked: Array, known: Array, num: int, chunk: int = 2**24) -> Neighbours:
    """The `num` nearest rows of known (m, d) for each row of asked (n, d); fewer where there are fewer.

    The search is in float32 about the mean, so that of two neighbours equal to about 1e-3 in distance either may be named; the
    distances are those of the ones named. Memory: both sets in float32 and a few times `chunk` numbers.
    """
    import torch  # partial sorting by two threads: numpy's would take longer than the products

    num = min(num, len(known))
    center = np.asarray(known[:1000], np.float64).mean(0)
    a, b = (torch.from_numpy(np.asarray(x - center, np.float32)) for x in (asked, known))
    lengths = (b * b).sum(1)
    index = torch.empty(len(a), num, dtype=torch.int64)
    step, width = max(1, chunk // max(len(b), 1)), len(b)
    for rows in torch.arange(len(a)).split(max(step, 1)):
        part = a[rows]
        gap = torch.addmm(lengths.expand(len(part), width), part, b.T, alpha=-2)  # squared distance less |part|^2
        index[rows] = gap.topk(num, dim=1, largest=False).indices
    distance = torch.empty(len(a), num, dtype=torch.float64)
    for rows in torch.arange(len(a)).split(max(1, chunk // max(1, num * a.shape[1]))):
        distance[rows] = (a[rows, None] - b[index[rows]]).double().norm(dim=2)
    order = distance.argsort(stable=True, dim=1)
    return Neighbours(index.gather(1, order).numpy().astype(np.intp), distance.gather(1, order).numpy())


def nearest(items: Items, train: Items) -> tuple[NDArray[np.intp], Array]:
    """For items (n, ...) the index (n,) of the nearest of the training items (m, ...) and its distance (n,).

    Euclidean in the items' own values, unsigned integers as [0, 1].
    """
    asked = as_unit(items).reshape(len(items), -1)
    parts = (train[i : i + 4096] for i in range(0, len(train), 4096))
    known = np.concatenate([as_unit(part).reshape(len(part), -1).astype(np.float32) for part in parts])
    index = neighbours(asked, known, 1).index[:, 0]
    return index, np.linalg.norm(asked - as_unit(train[index]).reshape(len(items), -1), axis=1)

"""Nearest training items: are the samples new, or the training set said again?"""

import numpy as np
from numpy.typing import NDArray

from langevin.evaluation.features import Array, Items, as_unit


def nearest(items: Items, train: Items, chunk: int = 2**22) -> tuple[NDArray[np.intp], Array]:
    """For items (n, ...) the index (n,) of the nearest of the training items (m, ...) and its distance (n,).

    Euclidean in the items' own values, unsigned integers as [0, 1]. Memory: the items and `chunk` numbers.
    """
    asked = as_unit(items).reshape(len(items), -1)
    index, best = np.zeros(len(asked), np.intp), np.full(len(asked), np.inf)
    step = max(1, chunk // max(asked.shape))
    for start in range(0, len(train), step):
        known = as_unit(train[start : start + step]).reshape(-1, asked.shape[1])
        gap = np.einsum("ij,ij->i", known, known) - 2 * asked @ known.T  # squared distance less |asked|^2
        closest = gap.argmin(1)
        gap = gap[np.arange(len(asked)), closest]
        index, best = np.where(gap < best, start + closest, index), np.minimum(gap, best)
    distance = np.empty(len(asked))
    for i, j in enumerate(index):  # anew and exactly: the difference above has lost digits
        distance[i] = np.linalg.norm(asked[i] - as_unit(train[j]).reshape(-1))
    return index, distance


def copy_limit(train: Items, held_out: Items, quantile: float = 0.01) -> float:
    """The distance to the nearest training item below which only that quantile of real unseen items lie.

    A sample nearer than this to a training item is as good as a copy of it.
    """
    return float(np.quantile(nearest(held_out, train)[1], quantile))

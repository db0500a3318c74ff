"""Nearest training items: are the samples new, or the training set said again?"""

import numpy as np
from numpy.typing import NDArray

from langevin.evaluation.features import Array, Items, as_unit


def nearest(items: Items, train: Items, chunk: int = 2**24) -> tuple[NDArray[np.intp], Array]:
    """For items (n, ...) the index (n,) of the nearest of the training items (m, ...) and its distance (n,).

    Euclidean in the items' own values, unsigned integers as [0, 1]. The search is in float32 about the items' mean, so that
    of two neighbours equal to about 1e-3 in distance either may be named; the distance itself is that of the one named, in
    float64. Memory: the items and a few times `chunk` numbers.
    """
    asked = as_unit(items).reshape(len(items), -1)
    center = asked.mean(0)
    moved = (asked - center).astype(np.float32)
    index, best = np.zeros(len(asked), np.intp), np.full(len(asked), np.inf)
    step = max(1, chunk // max(asked.shape))
    for start in range(0, len(train), step):
        known = as_unit(train[start : start + step]).reshape(-1, asked.shape[1])
        near = (known - center).astype(np.float32)
        gap = np.einsum("ij,ij->i", near, near) - 2 * moved @ near.T  # squared distance less |moved|^2
        closest = gap.argmin(1)
        distance = np.linalg.norm(asked - known[closest], axis=1)
        index, best = np.where(distance < best, start + closest, index), np.minimum(distance, best)
    return index, best

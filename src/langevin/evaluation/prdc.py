"""Fidelity and variety apart: which samples lie where real items lie, and how much of the real is reached.

The manifold of a set is the union of balls around its items, each as wide as the distance to its k-th neighbour.
precision: share of generated items inside the real manifold; recall: share of real items inside the generated one.

Source: Kynkaanniemi et al. 2019, "Improved precision and recall metric" (arXiv:1904.06991), equation 1.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from langevin.errors import DataError
from langevin.evaluation.features import Array


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


def _radii(points: Array, k: int, chunk: int) -> Array:
    """(n,) squared distance of every point to its k-th neighbour, itself not counted."""
    return np.concatenate(
        [
            np.partition(cdist(points[i : i + chunk], points, "sqeuclidean"), k, axis=1)[:, k]
            for i in range(0, len(points), chunk)
        ]
    )


def precision_recall(real: Array, generated: Array, k: int = 5, chunk: int = 1024) -> PrecisionRecall:
    """Of features real (n, d) and generated (m, d), n and m above k; use equal counts. Both in [0, 1]."""
    if min(len(real), len(generated)) <= k:
        raise DataError(f"precision and recall need more than k = {k} items in each set")
    real_radii, generated_radii = _radii(real, k, chunk), _radii(generated, k, chunk)
    inside, reached = 0, np.zeros(len(real), bool)
    for start in range(0, len(generated), chunk):
        part = slice(start, start + chunk)
        distance = cdist(generated[part], real, "sqeuclidean")
        inside += int((distance <= real_radii).any(1).sum())
        reached |= (distance <= generated_radii[part, None]).any(0)
    return PrecisionRecall(inside / len(generated), float(reached.mean()))

"""Fidelity and variety apart: which samples lie where real items lie, and how much of the real is reached.

The manifold of a set is the union of balls around its items, each as wide as the distance to its k-th neighbour. With X real
and Y generated items,

    precision   share of Y inside a ball of X             recall     share of X inside a ball of Y
    density     balls of X around an item of Y, over k    coverage   share of balls of X that hold an item of Y

Precision and recall are moved by single outliers, whose balls are wide; density and coverage are not. Where both sets follow one
law and are equally large, density is 1 in the mean and coverage 1 - C(n-1+n-k, n) / C(2n-1, n), about 1 - 2^-k.

Source: Kynkaanniemi et al. 2019, "Improved precision and recall metric" (arXiv:1904.06991), equation 1; Naeem et al. 2020,
"Reliable fidelity and diversity metrics for generative models" (arXiv:2002.09797), equations 3 and 5.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from langevin.errors import DataError
from langevin.evaluation.metrics.base import Array, Estimate, Metric, Named, Rows, halves

K = 5


class Shares(NamedTuple):
    """All in [0, 1] but the density, which may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Prdc(Metric):
    """All four at equal counts, `most` items of a side at most."""

    k: int = K
    most: int = 2_000

    def measure(self, real: Array, made: Array) -> list[Named]:
        used = min(len(real), len(made), self.most)
        x, y = real[:used], made[:used]
        _refuse_few(x, y, self.k)
        within = cdist(x, x, "sqeuclidean"), cdist(y, y, "sqeuclidean")
        between = cdist(x, y, "sqeuclidean")

        def shares(a: Rows, b: Rows) -> Array:
            inner, outer = (_radii(d[np.ix_(rows, rows)], self.k) for d, rows in zip(within, (a, b), strict=True))
            return np.array(tuple(_shares(between[np.ix_(a, b)], inner, outer, self.k)))

        rows = np.arange(used)
        errors = halves(shares, used, used) if used >= 4 * self.k else np.full(4, np.nan)
        found = zip(Shares._fields, shares(rows, rows), errors, strict=True)
        return [Named(name, Estimate(float(v), float(e)), (used, used), True) for name, v, e in found]


def prdc(real: Array, made: Array, k: int = K) -> Shares:
    """Of features real (n, d) and generated (m, d), n and m above k; use equal counts."""
    _refuse_few(real, made, k)
    inner, outer = (_radii(cdist(x, x, "sqeuclidean"), k) for x in (real, made))
    return _shares(cdist(real, made, "sqeuclidean"), inner, outer, k)


def _radii(within: Array, k: int) -> Array:
    """(n,) squared distance to the k-th neighbour, the item itself not counted, from those within a set (n, n)."""
    return np.asarray(np.partition(within, k, axis=1)[:, k])


def _refuse_few(real: Array, made: Array, k: int) -> None:
    if min(len(real), len(made)) <= k:
        raise DataError(f"precision and recall need more than k = {k} items in each set")


def _shares(between: Array, real: Array, made: Array, k: int) -> Shares:
    """From squared distances (n, m) between the sets, and squared radii (n,) and (m,)."""
    inside = between <= real[:, None]
    reached = between <= made
    return Shares(
        float(inside.any(0).mean()),
        float(reached.any(1).mean()),
        float(inside.sum() / (k * between.shape[1])),
        float(inside.any(1).mean()),
    )

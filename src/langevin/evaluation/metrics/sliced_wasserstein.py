"""Sliced Wasserstein distance: the squared 2-Wasserstein distance of projections on lines, averaged over directions.

    SW^2 = mean_w  integral_0^1 (F_w^-1(q) - G_w^-1(q))^2 dq

with F_w, G_w the distribution functions along w. It sees whole one-dimensional laws where a Frechet distance sees two moments.
The directions come in orthonormal frames of all of space, so that a shift by v gives |v|^2 / d exactly.

Source: Rabin et al. 2011, "Wasserstein barycenter and its application to texture mixing"; Bonneel et al. 2015.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langevin.errors import DataError
from langevin.evaluation.metrics.base import Array, Metric, Named, groups, jackknife


@dataclass(frozen=True)
class SlicedWasserstein(Metric):
    """Along `directions` at least, at most `most` items of a side; the seed decides the directions."""

    directions: int = 128
    most: int = 5_000
    seed: int = 0

    def measure(self, real: Array, made: Array) -> list[Named]:
        sides = real[: self.most], made[: self.most]
        if min(map(len, sides)) < 3:
            raise DataError("a sliced Wasserstein distance needs three items at least in each set")
        ways = frames(real.shape[1], self.directions, self.seed)
        a, b = (_Sorted(side @ ways) for side in sides)
        value = np.array([_distance(a.values, b.values)])
        left = [[_distance(a.without(g), b.values)] for g in range(a.groups)]
        right = [[_distance(a.values, b.without(g))] for g in range(b.groups)]
        found = jackknife(value, np.array(left), np.array(right))[0]
        return [Named("sliced wasserstein", found, (len(sides[0]), len(sides[1])))]


def frames(dim: int, least: int, seed: int) -> Array:
    """(dim, L) unit columns, L >= least: random orthonormal frames side by side."""
    rng = np.random.default_rng(seed)
    count = -(-least // dim)
    return np.concatenate([np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(count)], axis=1)


def sliced_wasserstein(a: Array, b: Array, directions: int = 128, seed: int = 0) -> float:
    """SW^2 of two sets of features, (n, d) and (m, d)."""
    ways = frames(a.shape[1], directions, seed)
    return _distance(np.sort(a @ ways, axis=0), np.sort(b @ ways, axis=0))


def _distance(a: Array, b: Array) -> float:
    """Of sorted columns (n, L) and (m, L): both quantile functions are steps, and between two steps nothing changes."""
    if len(a) == len(b):
        return float(((a - b) ** 2).mean())
    n, m = len(a), len(b)
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # of the pieces, in units of 1 / (n m)
    first = np.concatenate([[0], ends[:-1]])
    squares = ((a[first // m] - b[first // n]) ** 2).mean(1)
    return float(squares @ (ends - first) / (n * m))


class _Sorted:
    """Columns in order, and which group each of their entries belongs to."""

    def __init__(self, projected: Array) -> None:
        order = projected.argsort(0)
        member: NDArray[np.intp] = np.empty(len(projected), np.intp)
        dealt = groups(len(projected))
        for number, rows in enumerate(dealt):
            member[rows] = number
        self.values, self.groups = np.take_along_axis(projected, order, 0), len(dealt)
        self._member = member[order]

    def without(self, group: int) -> Array:
        kept = self._member != group
        return np.asarray(self.values.T[kept.T].reshape(self.values.shape[1], -1).T)

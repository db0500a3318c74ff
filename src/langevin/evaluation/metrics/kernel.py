"""Kernel distance: the unbiased squared maximum mean discrepancy with the cubic kernel k(x, y) = (x.y/d + 1)^3.

    U = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

It is 0 in the mean when both sets follow one law, whatever their sizes, and sees moments up to the third. In one
dimension it estimates 3 (m1 - m1')^2 + 3 (m2 - m2')^2 + (m3 - m3')^2 with the raw moments m of the two laws.

Its variance by Hoeffding's decomposition, with z_1 the variance of the projection on one item and z_aa, z_bb, z_ab
those of the doubly centred kernel:

    Var U = 4 z_1(a)/n + 4 z_1(b)/m + S,    S = 2 z_aa/n^2 + 2 z_bb/m^2 + 4 z_ab/(n m)

The spread of the observed row means overstates 4 z_1(a)/n + 4 z_1(b)/m by 2 S, so S is taken off once; what is left
can never be below S, the variance of two equal laws.

Source: Gretton et al. 2012, "A kernel two-sample test", lemma 6; Binkowski et al. 2018 (arXiv:1801.01401).
"""

from dataclasses import dataclass

import numpy as np

from langevin.errors import DataError
from langevin.evaluation.metrics.base import Array, Estimate, Metric, Named

LEAST_SCALE = 0.1
"""Of the leading component: weaker ones are divided by no less."""


@dataclass(frozen=True)
class Kernel(Metric):
    """The distance of two sets in units of the real one's standard deviations; at most `most` real items serve."""

    most: int = 5_000

    def measure(self, real: Array, made: Array) -> list[Named]:
        center, deviation = real.mean(0), real.std(0)
        scale = np.maximum(deviation, LEAST_SCALE * deviation.max()) if deviation.max() > 0 else 1.0
        some = real[: self.most]
        found = kernel_distance((made - center) / scale, (some - center) / scale)
        return [Named("kernel", found, (len(some), len(made)))]


@dataclass(frozen=True)
class _Block:
    """What is kept of one (n, m) kernel matrix: means of its rows and columns, its mean, its doubly centred variance."""

    rows: Array
    columns: Array
    mean: float
    spread: float


def _block(a: Array, b: Array | None, chunk: int) -> _Block:
    """The kernel matrix of a with b, or of a with itself less its diagonal; never more than `chunk` rows at once."""
    other = a if b is None else b
    rows, columns, squares = np.empty(len(a)), np.zeros(len(other)), 0.0
    for start in range(0, len(a), chunk):
        k = a[start : start + chunk] @ other.T
        k *= 1.0 / a.shape[1]
        k += 1.0
        k *= k * k
        if b is None:
            k[np.arange(len(k)), np.arange(start, start + len(k))] = 0.0
        rows[start : start + chunk] = k.sum(1)
        columns += k.sum(0)
        squares += float(np.einsum("ij,ij->", k, k))
    width, height = (len(a) - 1,) * 2 if b is None else (len(other), len(a))
    rows, columns = rows / width, columns / height
    mean = float(rows.mean())
    spread = squares / (len(a) * width) - mean**2 - rows.var() - columns.var()
    return _Block(rows, columns, mean, max(float(spread), 0.0))


def kernel_distance(a: Array, b: Array, chunk: int = 2048) -> Estimate:
    """Unbiased squared MMD of features a (n, d) and b (m, d) and its standard error.

    Features should be standardised first: the kernel is not free of scale. Memory is `chunk` * max(n, m) numbers.
    The value may be below zero. Raises DataError below two items in either set.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(len(a), len(b)) < 2:
        raise DataError(f"a kernel distance needs two items at least in each set, not {len(a)} and {len(b)}")
    n, m = len(a), len(b)
    aa, bb, ab = _block(a, None, chunk), _block(b, None, chunk), _block(a, b, chunk)
    first = 4 * np.var(aa.rows - ab.rows, ddof=1) / n + 4 * np.var(bb.rows - ab.columns, ddof=1) / m
    second = 2 * aa.spread / n**2 + 2 * bb.spread / m**2 + 4 * ab.spread / (n * m)
    variance = max(float(first - second), second)
    return Estimate(aa.mean + bb.mean - 2 * ab.mean, float(np.sqrt(variance)))

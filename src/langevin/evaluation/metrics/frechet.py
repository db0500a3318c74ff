"""The Frechet (2-Wasserstein) distance of two normal laws, squared:

    d^2 = |m_a - m_b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2

The last trace is the sum of the singular values of A^1/2 B^1/2. Taken so, nothing leaves the real numbers, and an
eigenvalue of a singular covariance that is rounding noise stays noise instead of becoming its square root.

Source: Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions"; Heusel et al. 2017
(arXiv:1706.08500) for its use on features of pictures. An estimate from n items is too large by about c/n: compare at
equal n only, or take that off.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from langevin.errors import DataError
from langevin.evaluation.metrics.base import Array, Estimate, Metric, Named, groups, jackknife


def _root(cov: Array) -> Array:
    """F (d, d) with F^T F = cov; directions that are zero to rounding are exactly zero."""
    values, vectors = scipy.linalg.eigh((cov + cov.T) / 2)
    noise = len(values) * np.finfo(np.float64).eps * max(float(np.abs(values).max()), 0.0)
    return np.asarray(np.sqrt(np.where(values > noise, values, 0.0))[:, None] * vectors.T)


def frechet_distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """Squared Frechet distance of N(mean_a, cov_a) and N(mean_b, cov_b); means (d,), covariances (d, d); >= 0."""
    shift = np.asarray(mean_a, np.float64) - np.asarray(mean_b, np.float64)
    a, b = np.atleast_2d(np.asarray(cov_a, np.float64)), np.atleast_2d(np.asarray(cov_b, np.float64))
    overlap = scipy.linalg.svdvals(_root(a) @ _root(b).T).sum()
    return max(0.0, float(shift @ shift + np.trace(a) + np.trace(b) - 2 * overlap))


def moments(features: Array) -> tuple[Array, Array]:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d). Raises DataError below two items."""
    if len(features) < 2:
        raise DataError(f"a covariance needs two items at least, not {len(features)}")
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet(a: Array, b: Array) -> float:
    """Squared Frechet distance of two sets of features, (n, d) and (m, d), float64."""
    return frechet_distance(*moments(a), *moments(b))


@dataclass(frozen=True)
class Frechet(Metric):
    """The distance of two sets; its bias and its error are those of the jackknife."""

    def measure(self, real: Array, made: Array) -> list[Named]:
        way = estimate if real.shape[1] <= MOST_DIM else by_influence
        return [Named("frechet", way(real, made), (len(real), len(made)))]


MOST_DIM = 256
"""Beyond so many dimensions the bias is left as it is, and the error is that of the first order, by influence."""


def by_influence(real: Array, made: Array) -> Estimate:
    """The distance, with the error that follows from how much each item moves it:

        psi(x) = 2 (m_b - m_a) . (x - m_b) + (x - m_b)^T (1 - T) (x - m_b),    error^2 = var psi / n

    for either side, T = A^1/2 (A^1/2 B A^1/2)^-1/2 A^1/2 the optimal map from its law to the other one. Nothing is known of the
    bias. (Olkin and Pukelsheim 1982 for the gradient.)
    """
    (mean_a, cov_a), (mean_b, cov_b) = moments(real), moments(made)
    root = _root(cov_a)  # root^T root = A
    variance = 0.0
    values, vectors = scipy.linalg.eigh(root @ cov_b @ root.T)
    lengths = np.sqrt(np.clip(values, 0, None))
    least = 1e-7 * lengths.max(initial=0.0)
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > least)
    to_a = root.T @ (vectors * inverse) @ vectors.T @ root
    back = np.linalg.pinv(root, rcond=1e-7)
    to_b = back @ (vectors * lengths) @ vectors.T @ back.T
    for items, mean, other, onto in ((made, mean_b, mean_a, to_a), (real, mean_a, mean_b, to_b)):
        moved = items - mean
        psi = 2 * moved @ (mean - other) + np.einsum("ij,ij->i", moved, moved - moved @ onto)
        variance += float(psi.var(ddof=1)) / len(items)
    return Estimate(frechet_distance(mean_a, cov_a, mean_b, cov_b), float(np.sqrt(variance)))


def estimate(real: Array, made: Array) -> Estimate:
    """Squared Frechet distance of two sets of features (n, d) and (m, d), n and m above 2.

    Where both laws are nearly the same the distance is a square of small things: the jackknife counts what two groups do together
    twice. With b_gh = theta_gh - theta_g - theta_h + theta, the variance is that of the jackknife less the sum of b_gh^2, and never
    less than that sum (Efron and Stein 1981, section 4).
    """
    a, b = _Sums(real), _Sums(made)
    theta = frechet_distance(*a.moments(), *b.moments())
    (whole_a, each_a, pairs_a), (whole_b, each_b, pairs_b) = a.subsets(), b.subsets()
    left, right = _distances(each_a, whole_b), _distances(each_b, whole_a)
    first = jackknife(np.array([theta]), left[:, None], right[:, None], biased=True)[0]
    second = 0.0
    for pairs, whole, each in ((pairs_a, whole_b, left), (pairs_b, whole_a, right)):
        g, h = np.triu_indices(len(each), 1)
        second += _squares(_distances(pairs, whole) - each[g] - each[h] + theta)
    across = np.stack([_distances(each_a, (m[None], c[None])) for m, c in zip(*each_b, strict=True)], axis=1)
    second += _squares((across - left[:, None] - right + theta).ravel())
    return first._replace(error=float(np.sqrt(max(first.error**2 - second, second))))


def difference(real: Array, made: Array, other: Array) -> Estimate:
    """How far the distance of `made` lies above that of `other`; item k of both has one origin, such as its seed.

    Groups are left out of both at once, so what two settings have in common (the seeds, and the real items) adds no error. Of
    equal counts, the two biases are nearly the same: none is told.

    Args:
        real, made, other: (n, d), (m, d), (m, d).
    """
    if made.shape != other.shape:
        raise DataError(f"{made.shape} and {other.shape} are not features of the same items")
    a, trials = _Sums(real), []
    for b in (_Sums(made), _Sums(other)):
        (whole_a, each_a, _), (whole_b, each_b, _) = a.subsets(), b.subsets()
        trials.append((_distances(whole_a, whole_b), _distances(each_a, whole_b), _distances(each_b, whole_a)))
    value, left, right = (x - y for x, y in zip(*trials, strict=True))
    return jackknife(value, left[:, None], right[:, None])[0]


Moments = tuple[Array, Array]


def _squares(together: Array) -> float:
    return float(((together - together.mean()) ** 2).sum())


def _distances(many: Moments, one: Moments) -> Array:
    """(P,) squared distances of P laws, means (P, d) and covariances (P, d, d), from one law (1, d), (1, d, d)."""
    root = _root(one[1][0])
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(root @ many[1] @ root.T), 0, None)).sum(1)
    shift = ((many[0] - one[0]) ** 2).sum(1)
    return np.asarray(shift + np.trace(many[1], axis1=1, axis2=2) + np.trace(one[1][0]) - 2 * overlap)


class _Sums:
    """Sums and sums of squares of a set, group by group, so that its moments without some groups are found at once."""

    def __init__(self, features: Array) -> None:
        if len(features) < 3:
            raise DataError(f"an error needs three items at least, not {len(features)}")
        self._features, self.center = features, features.mean(0)
        parts = [features[rows] - self.center for rows in groups(len(features))]
        self.counts = np.array([len(part) for part in parts], float)
        self.sums = np.array([part.sum(0) for part in parts])
        self.squares = np.array([part.T @ part for part in parts])

    def moments(self) -> Moments:
        return moments(self._features)

    def subsets(self) -> tuple[Moments, Moments, Moments]:
        """The moments of all items, of those without each group, and of those without each pair of groups."""
        each = np.eye(len(self.counts))
        g, h = np.triu_indices(len(each), 1)
        return self._without(np.zeros((1, len(each)))), self._without(each), self._without(each[g] + each[h])

    def _without(self, left_out: Array) -> Moments:
        kept = 1 - left_out  # (P, G)
        count = kept @ self.counts
        mean = kept @ self.sums / count[:, None]
        squares = np.tensordot(kept, self.squares, 1)
        outer = mean[:, :, None] * mean[:, None, :]
        return self.center + mean, (squares - count[:, None, None] * outer) / (count - 1)[:, None, None]

"""The Frechet (2-Wasserstein) distance of two normal laws, squared:

    d^2 = |m_a - m_b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2

The last trace is the sum of the singular values of A^1/2 B^1/2. Taken so, nothing leaves the real numbers, and an
eigenvalue of a singular covariance that is rounding noise stays noise instead of becoming its square root.

Source: Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions"; Heusel et al. 2017
(arXiv:1706.08500) for its use on features of pictures. An estimate from n items is too large by about c/n: compare at
equal n only.
"""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from langevin.errors import DataError

Array = NDArray[np.float64]


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

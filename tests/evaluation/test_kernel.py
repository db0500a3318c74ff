"""The kernel distance against scikit-learn's kernel, moments of known laws, and its own spread over repeated draws."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from langevin.errors import DataError
from langevin.evaluation.metrics.kernel import _block, kernel_distance


def reference(a, b):
    def k(u, v):
        return polynomial_kernel(u, v, degree=3, gamma=1 / a.shape[1], coef0=1)

    n, m = len(a), len(b)
    within = (k(a, a).sum() - np.trace(k(a, a))) / n / (n - 1) + (k(b, b).sum() - np.trace(k(b, b))) / m / (m - 1)
    return within - 2 * k(a, b).mean()


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_equals_the_plain_formula_in_any_chunks(chunk):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 8)), rng.normal(size=(37, 8)) * 1.3 + 0.2
    value, error, _ = kernel_distance(a, b, chunk)
    assert value == pytest.approx(reference(a, b), rel=1e-9)
    assert error == pytest.approx(kernel_distance(a, b).error, rel=1e-9)


def test_one_dimension_is_a_distance_of_moments():
    """(1 + xy)^3 = 1 + 3xy + 3(xy)^2 + (xy)^3: N(0, 1) against N(mu, 1) differ by 3 mu^2 + 3 mu^4 + (mu^3 + 3 mu)^2."""
    rng = np.random.default_rng(1)
    mu = 0.5
    value, error, _ = kernel_distance(rng.normal(size=(4000, 1)), rng.normal(size=(3000, 1)) + mu)
    exact = 3 * mu**2 + 3 * mu**4 + (mu**3 + 3 * mu) ** 2
    assert abs(value - exact) < 4 * error
    assert error < 0.15 * exact


def test_spread_is_the_variance_of_the_doubly_centred_kernel():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(300, 3)), rng.normal(size=(200, 3))
    k = polynomial_kernel(a, b, degree=3, gamma=1 / 3, coef0=1)
    centred = k - k.mean(0) - k.mean(1, keepdims=True) + k.mean()
    assert _block(a, b, 64).spread == pytest.approx((centred**2).mean(), rel=1e-9)
    k = polynomial_kernel(a, a, degree=3, gamma=1 / 3, coef0=1)
    np.fill_diagonal(k, np.nan)
    centred = k - np.nanmean(k, 0) - np.nanmean(k, 1)[:, None] + np.nanmean(k)
    assert _block(a, None, 64).spread == pytest.approx(np.nanmean(centred**2), rel=0.03)  # equal but for 1/n


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.6])
def test_standard_error_is_the_spread_over_draws_and_the_mean_is_right(shift):
    rng = np.random.default_rng(2)
    draws = [kernel_distance(rng.normal(size=(120, 4)), rng.normal(size=(200, 4)) + shift) for _ in range(400)]
    values, errors, _ = np.array(draws).T
    assert 0.85 < np.sqrt(np.mean(errors**2)) / values.std() < (1.3 if shift == 0 else 1.15)  # never flattering
    # with independent x, y of dimension d and u = x.y: E k = 1 + 3 E u/d + 3 E u^2/d^2 + E u^3/d^3
    d, m2 = 4, 4 * shift**2  # m2 = |mean|^2
    kbb = 1 + 3 * m2 / d + 3 * (d + 2 * m2 + m2**2) / d**2 + _third(shift, shift) / d**3
    kaa, kab = 1 + 3 * d / d**2, 1 + 3 * (d + m2) / d**2 + _third(0.0, shift) / d**3
    assert abs(values.mean() - (kaa + kbb - 2 * kab)) < 4 * values.std() / np.sqrt(len(values))


def _third(a, b, dim=4):
    """E (x.y)^3 for independent x ~ N(a 1, I), y ~ N(b 1, I): contraction of the two third-moment tensors."""

    def tensor(mean):
        m, eye = np.full(dim, mean), np.eye(dim)
        pairs = np.einsum("i,jk->ijk", m, eye) + np.einsum("j,ik->ijk", m, eye) + np.einsum("k,ij->ijk", m, eye)
        return np.einsum("i,j,k->ijk", m, m, m) + pairs

    return float((tensor(a) * tensor(b)).sum())


def test_one_law_is_within_four_standard_errors_of_zero():
    for seed in range(20):
        a, b = np.random.default_rng(seed).normal(size=(2, 500, 16))
        value, error, _ = kernel_distance(a, b)
        assert abs(value) < 4 * error


def test_one_item_is_refused():
    with pytest.raises(DataError, match="two items"):
        kernel_distance(np.zeros((1, 3)), np.zeros((5, 3)))

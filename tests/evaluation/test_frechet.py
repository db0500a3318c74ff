"""Frechet distances against closed forms and against the matrix square root."""

import numpy as np
import pytest
import scipy.linalg

from langevin.errors import DataError
from langevin.evaluation.metrics.frechet import difference, estimate, frechet, frechet_distance, moments


def reference(mean_a, cov_a, mean_b, cov_b):
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root.real))


@pytest.mark.parametrize("dim", [1, 2, 16, 64])
def test_equals_the_matrix_square_root(dim):
    rng = np.random.default_rng(dim)
    a, b = (rng.normal(size=(4 * dim + 8, dim)) @ rng.normal(size=(dim, dim)) for _ in range(2))
    assert frechet(a, b) == pytest.approx(reference(*moments(a), *moments(b)), rel=1e-6)


def test_normal_laws_with_commuting_covariances_have_a_closed_form():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    stds_a, stds_b = rng.uniform(0.1, 3, 16), rng.uniform(0.1, 3, 16)
    mean_a, mean_b = rng.normal(size=16), rng.normal(size=16)
    got = frechet_distance(mean_a, turn * stds_a**2 @ turn.T, mean_b, turn * stds_b**2 @ turn.T)
    assert got == pytest.approx(((mean_a - mean_b) ** 2).sum() + ((stds_a - stds_b) ** 2).sum(), rel=1e-12)


def test_samples_of_known_laws():
    """d = 16, n = 5000: identical arrays 0; unit shift 1; twice the scale 16; each to its sampling error."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5000, 16))
    shift = np.zeros(16)
    shift[3] = 1.0
    assert frechet(x, x) < 1e-10
    assert frechet(x, x + shift) == pytest.approx(1.0, abs=1e-10)
    assert frechet(x, y + shift) == pytest.approx(1.0, abs=0.1)
    assert frechet(x, 2 * y) == pytest.approx(16.0, rel=0.03)


def test_singular_covariances_give_no_spurious_distance():
    rng = np.random.default_rng(1)
    low = rng.normal(size=(3, 40))
    a = rng.normal(size=(12, 3)) @ low
    mean, cov = moments(a)
    assert frechet_distance(mean, cov, mean, cov) < 1e-9 * np.trace(cov)
    shared = frechet_distance(mean, cov, mean, 4 * cov)  # every standard deviation doubled: tr cov
    assert shared == pytest.approx(np.trace(cov), rel=1e-9)
    apart_a, apart_b = np.diag([1.0, 2.0, 0.0, 0.0]), np.diag([0.0, 0.0, 3.0, 0.0])
    assert frechet_distance(np.zeros(4), apart_a, np.zeros(4), apart_b) == pytest.approx(6.0, abs=1e-12)


def test_symmetric_and_free_of_rotation():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(200, 8)), 1.5 * rng.normal(size=(100, 8)) + 0.3
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert frechet(b, a) == pytest.approx(frechet(a, b), rel=1e-10)
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-10)


def test_one_item_has_no_covariance():
    with pytest.raises(DataError, match="two items"):
        frechet(np.zeros((1, 3)), np.zeros((5, 3)))


def test_the_error_of_a_difference_is_its_spread_over_sets_and_far_below_that_of_two_distances():
    """Two settings from the same seeds: one is the other, slightly shifted and widened. Over 60 fresh sets."""
    rng = np.random.default_rng(3)
    real = rng.normal(size=(4000, 6))

    def pair():
        seeds = rng.normal(size=(300, 6))
        return 1.05 * seeds + 0.2, seeds + 0.1

    found = [difference(real, *pair()) for _ in range(60)]
    for estimate_, (made, other) in ((difference(real, *two), two) for two in (pair(), pair())):
        assert estimate_.value == pytest.approx(frechet(real, made) - frechet(real, other), rel=1e-6)
        back = difference(real, other, made)
        assert (back.value, back.error) == pytest.approx((-estimate_.value, estimate_.error))
    spread = np.std([one.value for one in found], ddof=1)
    told = np.mean([one.error for one in found])
    assert 0.75 < told / spread < 1.4
    made, other = pair()
    apart = np.hypot(estimate(real, made).error, estimate(real, other).error)
    assert told < 0.75 * apart
    assert difference(real, made, made) == (0, 0, 0)
    with pytest.raises(DataError):
        difference(real, made, other[:-1])

"""Precision, recall, density and coverage against neighbours found by scikit-learn, and in cases with a known answer."""

from math import comb

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from langevin.errors import DataError
from langevin.evaluation.metrics.prdc import Prdc, prdc


def reference(real, generated, k):
    def inside(points, balls):
        radius = NearestNeighbors(n_neighbors=k + 1).fit(balls).kneighbors(balls)[0][:, k]
        return np.mean([(np.linalg.norm(balls - p, axis=1) <= radius).any() for p in points])

    return inside(generated, real), inside(real, generated)


def plain(real, generated, k):
    """Density and coverage by the formulas of the paper, item by item."""
    radius = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, k]
    inside = np.linalg.norm(real[:, None] - generated[None], axis=2) <= radius[:, None]
    return inside.sum() / (k * len(generated)), inside.any(1).mean()


def test_equals_a_plain_search():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(80, 5)), rng.normal(size=(60, 5)) * 1.4 + 0.5
    found = prdc(real, generated, 3)
    assert found[:2] == pytest.approx(reference(real, generated, 3), abs=1e-12)
    assert found[2:] == pytest.approx(plain(real, generated, 3), abs=1e-12)


def test_a_set_against_itself_is_perfect():
    x = np.random.default_rng(1).normal(size=(200, 8))
    assert prdc(x, x)[:2] == (1.0, 1.0)
    assert prdc(x, x).coverage == 1.0


def test_density_is_one_and_coverage_as_expected_where_both_follow_one_law():
    """Coverage: all k nearest of 2n - 1 items around a real one, in any order, are real with chance C(2n-1-k, n) / C(2n-1, n)."""
    n, k, rng = 60, 5, np.random.default_rng(4)
    found = np.array([prdc(rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), k) for _ in range(300)])
    assert found[:, 2].mean() == pytest.approx(1.0, abs=4 * found[:, 2].std() / 300**0.5)
    expected = 1 - comb(2 * n - 1 - k, n) / comb(2 * n - 1, n)
    assert found[:, 3].mean() == pytest.approx(expected, abs=4 * found[:, 3].std() / 300**0.5)


def test_a_lost_mode_costs_recall_and_a_foreign_one_precision():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 1000
    assert prdc(np.r_[a, b], a)[:2] == (1.0, 0.5)
    assert prdc(a, np.r_[a, b])[:2] == (0.5, 1.0)


def test_an_outlier_costs_density_little_where_it_makes_precision_perfect():
    """One real item far away has a ball that covers everything; the density counts it as one of k = 5 at most."""
    rng = np.random.default_rng(3)
    real = np.r_[rng.normal(size=(99, 2)), [[1000.0, 0.0]]]
    far = rng.normal(size=(100, 2)) + np.array([300.0, 0.0])
    assert prdc(real, far).precision == 1.0
    assert prdc(real, far).density == 0.2


def test_measured_at_equal_counts_with_the_same_values():
    rng = np.random.default_rng(5)
    real, made = rng.normal(size=(90, 3)), rng.normal(size=(70, 3))
    found = Prdc(k=3, most=50).measure(real, made)
    assert [f.estimate.value for f in found] == list(prdc(real[:50], made[:50], 3))
    assert {f.counts for f in found} == {(50, 50)}


def test_too_few_items_are_refused():
    with pytest.raises(DataError, match="more than k = 5"):
        prdc(np.zeros((5, 2)), np.zeros((50, 2)))

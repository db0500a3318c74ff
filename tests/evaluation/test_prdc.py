"""Precision and recall against neighbours found by scikit-learn, and in cases with a known answer."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from langevin.errors import DataError
from langevin.evaluation.prdc import precision_recall


def reference(real, generated, k):
    def inside(points, balls):
        radius = NearestNeighbors(n_neighbors=k + 1).fit(balls).kneighbors(balls)[0][:, k]
        return np.mean([(np.linalg.norm(balls - p, axis=1) <= radius).any() for p in points])

    return inside(generated, real), inside(real, generated)


@pytest.mark.parametrize("chunk", [1, 13, 1000])
def test_equals_a_plain_search(chunk):
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(80, 5)), rng.normal(size=(60, 5)) * 1.4 + 0.5
    assert precision_recall(real, generated, 3, chunk) == pytest.approx(reference(real, generated, 3), abs=1e-12)


def test_a_set_against_itself_is_perfect():
    x = np.random.default_rng(1).normal(size=(200, 8))
    assert precision_recall(x, x) == (1.0, 1.0)


def test_a_lost_mode_costs_recall_and_a_foreign_one_precision():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 1000
    assert precision_recall(np.r_[a, b], a) == (1.0, 0.5)
    assert precision_recall(a, np.r_[a, b]) == (0.5, 1.0)


def test_too_few_items_are_refused():
    with pytest.raises(DataError, match="more than k = 5"):
        precision_recall(np.zeros((5, 2)), np.zeros((50, 2)))

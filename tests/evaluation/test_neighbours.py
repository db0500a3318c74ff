"""Nearest items against brute force, and copies that were planted."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from langevin.evaluation import neighbours as module
from langevin.evaluation.neighbours import nearest, neighbours


def test_equals_brute_force():
    rng = np.random.default_rng(0)
    items, train = (
        rng.integers(0, 256, (30, 4, 4, 1), dtype=np.uint8),
        rng.integers(0, 256, (70, 4, 4, 1), dtype=np.uint8),
    )
    all_pairs = cdist(items.reshape(30, -1) / 255, train.reshape(70, -1) / 255)
    index, distance = nearest(items, train)
    np.testing.assert_array_equal(index, all_pairs.argmin(1))
    np.testing.assert_allclose(distance, all_pairs.min(1), rtol=1e-12)


def test_a_copy_is_at_distance_zero_exactly():
    train = np.random.default_rng(1).uniform(size=(50, 20)) + 1000.0
    index, distance = nearest(train[[7, 31]], train)
    np.testing.assert_array_equal(index, [7, 31])
    np.testing.assert_array_equal(distance, 0.0)


@pytest.mark.parametrize("chunk", [1, 100, 2**24])
def test_the_first_neighbours_are_those_of_a_tree(chunk):
    rng = np.random.default_rng(2)
    asked, known = rng.normal(size=(30, 6)), rng.normal(size=(200, 6))
    found = neighbours(asked, known, 7, chunk)
    distance, index = cKDTree(known).query(asked, 7)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-5)


def test_there_are_no_more_neighbours_than_items():
    assert neighbours(np.zeros((3, 2)), np.eye(2), 5).index.shape == (3, 2)


@pytest.mark.parametrize("unit", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_the_unit_and_the_origin_have_no_part_in_it(unit, offset):
    """Squares of such values are nothing, or infinite, in float32."""
    rng = np.random.default_rng(3)
    asked, known = rng.normal(size=(20, 5)), rng.normal(size=(300, 5))
    found = neighbours((asked + offset) * unit, (known + offset) * unit, 4, chunk=900)
    distance, index = cKDTree(known).query(asked, 4)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, unit * distance, rtol=1e-9)


def test_rows_may_be_made_of_items_as_they_are_sought():
    rng = np.random.default_rng(4)
    asked, known = rng.integers(0, 256, (15, 12), dtype=np.uint8), rng.integers(0, 256, (500, 12), dtype=np.uint8)
    found = neighbours(asked / 255, known, 3, 64, values=lambda rows: rows / 255)
    distance, _ = cKDTree(known / 255).query(asked / 255, 3)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-12)


@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_long_rows_have_the_same_neighbours_screened_or_not(kind, monkeypatch):
    """Smooth rows are settled by the screen; noise, which has no leading axes, is looked at in full."""
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(700, 600))
    rows = rows.cumsum(1) if kind == "smooth" else rows
    asked, known = rows[:100], rows[100:]
    plain = neighbours(asked, known, 5)
    monkeypatch.setattr(module, "LARGE", 1)
    monkeypatch.setattr(module, "SOME", 300)
    searched = []
    search = module._search
    monkeypatch.setattr(module, "_search", lambda a, *more: searched.append(a.shape) or search(a, *more))
    found = neighbours(asked, known, 5)
    np.testing.assert_array_equal(found.index, plain.index)
    np.testing.assert_allclose(found.distance, plain.distance, rtol=1e-12)
    assert searched[0] == (100, 129)
    in_full = sum(n for n, d in searched[1:])
    assert in_full == 0 if kind == "smooth" else in_full > 50

"""Order and mirroring: laws that hold whatever the seed."""

import numpy as np
import torch

from langevin.data.augment import flip, mirrored
from langevin.data.order import stretch


def order(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """A whole epoch."""
    return stretch(seed, indices, epoch * len(indices), len(indices))


def test_an_epoch_is_a_permutation_and_seeds_and_epochs_differ() -> None:
    indices = np.arange(100, 1100)
    first = order(3, 0, indices)
    assert np.array_equal(np.sort(first), indices)
    assert np.array_equal(first, order(3, 0, indices))
    assert not np.array_equal(first, order(3, 1, indices))
    assert not np.array_equal(first, order(4, 0, indices))


def test_places_are_uniform() -> None:
    """Chi-square of where item 0 lands among 10 places, over 2,000 epochs: 9 degrees of freedom."""
    places = [int(np.flatnonzero(order(11, epoch, np.arange(10)) == 0)[0]) for epoch in range(2000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 33.7  # p = 1e-4


def test_batches_are_windows_of_the_endless_row_of_epochs() -> None:
    indices = np.array([2, 3, 5, 7, 11, 13, 17])
    row = np.concatenate([order(5, epoch, indices) for epoch in range(20)])
    for batch in (1, 3, 7, 10, 16):
        got = np.concatenate([stretch(5, indices, step * batch, batch) for step in range(140 // batch)])
        assert np.array_equal(got, row[: len(got)])


def test_the_order_is_that_of_samples_whatever_the_batch() -> None:
    indices = np.arange(50)
    by_8 = np.concatenate([stretch(-1, indices, 8 * step, 8) for step in range(30)])
    by_24 = np.concatenate([stretch(-1, indices, 24 * step, 24) for step in range(10)])
    assert np.array_equal(by_8, by_24)


def test_mirroring_is_fair_and_of_each_sample_alone() -> None:
    indices = np.arange(20_000)
    chosen = mirrored(7, indices, 3)
    assert abs(chosen.mean() - 0.5) < 4 * 0.5 / np.sqrt(20_000)
    assert np.array_equal(mirrored(7, indices[500:600], 3), chosen[500:600])
    for other in (mirrored(7, indices, 4), mirrored(8, indices, 3)):
        assert abs((other == chosen).mean() - 0.5) < 4 * 0.5 / np.sqrt(20_000)


def test_flip_mirrors_exactly_the_chosen() -> None:
    x = torch.arange(4 * 2 * 3 * 5, dtype=torch.float32).reshape(4, 2, 3, 5)
    indices = [10, 11, 12, 13]
    out, chosen = flip(x, 1, indices, 0), mirrored(1, indices, 0)
    assert 0 < chosen.sum() < 4
    for k in range(4):
        assert torch.equal(out[k], x[k].flip(-1) if chosen[k] else x[k])

"""Sheets are read back: the tiles are the items, in their places."""

import numpy as np
import pytest

from langevin.data.show import as_rgb, grid
from langevin.errors import DataError
from langevin.evaluation.sheets import MARGIN, TITLE, generated_above_nearest, real_against_generated

RNG = np.random.default_rng(0)


def halves(sheet):
    pixels = np.asarray(sheet)[TITLE:]
    width = (pixels.shape[1] - MARGIN) // 2
    return pixels[:, :width], pixels[:, -width:]


def test_each_half_is_the_grid_of_its_items_under_a_name():
    real, made = RNG.integers(0, 256, (2, 9, 8, 8, 1), dtype=np.uint8)
    sheet = real_against_generated(real, made)
    left, right = halves(sheet)
    np.testing.assert_array_equal(left, np.asarray(grid(real)))
    np.testing.assert_array_equal(right, np.asarray(grid(made)))
    header = np.asarray(sheet)[:TITLE]
    assert (header[:, : left.shape[1]] < 128).any()
    assert (header[:, -left.shape[1] :] < 128).any()


def test_both_halves_have_the_smaller_number_of_tiles_and_the_seed_draws_the_real_ones():
    real, made = (RNG.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8) for n in (30, 4))
    left, right = halves(real_against_generated(real, made, seed=1))
    np.testing.assert_array_equal(right, np.asarray(grid(made)))
    drawn = np.sort(np.random.default_rng(1).permutation(30)[:4])
    np.testing.assert_array_equal(left, np.asarray(grid(real[drawn])))


def test_floats_of_both_halves_share_one_scale():
    real = np.linspace(0, 1, 256).reshape(4, 8, 8, 1)
    left, right = halves(real_against_generated(real, real / 2))
    assert left.max() == 255
    assert (right[right < 255].max(), right.min()) == (128, 0)


def test_every_sample_stands_above_its_nearest_training_item():
    train = RNG.integers(0, 200, (40, 64, 64, 1), dtype=np.uint8)
    chosen = [5, 17, 3, 38, 20]
    made = train[chosen] + 2  # nearest to where it came from
    pixels = np.asarray(generated_above_nearest(made, train, columns=3))
    step_x = 64 + 2
    step_y = 64 + 14 + 2  # a caption under each
    for k, source in enumerate(chosen):
        top, left = 2 + 2 * (k // 3) * step_y, 2 + (k % 3) * step_x
        np.testing.assert_array_equal(pixels[top : top + 64, left : left + 64], as_rgb(made[k : k + 1])[0])
        below = pixels[top + step_y : top + step_y + 64, left : left + 64]
        np.testing.assert_array_equal(below, as_rgb(train[source : source + 1])[0])


def test_items_of_two_kinds_are_refused():
    with pytest.raises(DataError, match="one kind"):
        real_against_generated(np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 8, 8, 1)))

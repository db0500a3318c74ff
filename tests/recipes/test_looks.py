"""When a run looks, at what, at what cost; that it goes on where it was; the picture."""

import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image

from langevin import data
from langevin.diffusion.times import LogNormal
from langevin.diffusion.weights import Karras
from langevin.evaluation.noise_levels import LEVELS, held_out_loss
from langevin.evaluation.verdict import looks_of
from langevin.recipes.looks import FIRST, LEAST, MOST, Looks, Rhythm
from langevin.recipes.progress import POINTS, Curve, draw, smooth
from langevin.training.feed import Feed
from tests.models import digits_like, small_model


def _steps(steps: int, batch: int) -> list[int]:
    rhythm, at = Rhythm.of(steps, batch), []
    place = FIRST
    while rhythm.worthwhile(place / steps):
        at.append(place)
        place = rhythm.after(place)
    return at


@pytest.mark.parametrize("steps", [200, 1000, 3000, 6000, 20_000, 1_000_000])
@pytest.mark.parametrize("batch", [8, 32, 256])
def test_looks_cost_a_fiftieth_of_a_run_and_lie_dense_at_first(steps, batch):
    """A loss is one pass of a sample through the network, a step three a sample. A short run pays a twentieth, at most."""
    at, rhythm = _steps(steps, batch), Rhythm.of(steps, batch)
    cost = (len(at) + 1) * 2 * LEVELS * rhythm.count / (3 * steps * batch)
    assert LEAST <= rhythm.count <= MOST
    assert cost < (0.0201 if rhythm.count > LEAST else 0.0501) or not at
    if steps >= 3000 and batch >= 32:
        assert cost <= 0.0201
        assert at[0] == FIRST
        assert max(np.diff(np.log([*at, steps]))) < math.log(
            1.42
        )  # overfitting is placed within a factor 1.42 of its step
        assert max(np.diff([*at, steps])) <= steps / 8 + 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "set.npy"
    np.save(path, digits_like(90)[0])
    return data.open(str(path))


def _looks(dataset, rows=(), steps=3000, seconds=None):
    model = small_model(())
    feed = Feed(dataset, model.codec, dataset.train_indices, 5, 32)
    return Looks(rows, feed, LogNormal(), Karras(0.5), steps=steps, seconds=seconds), model.denoiser


def test_few_items_are_looked_at_often(dataset):
    """As many losses on either side; the row says what `held_out_loss` says of the same items."""
    looks, denoiser = _looks(dataset)
    level, more = looks.look(64, 64 / 3000, denoiser)
    held_out = len(dataset.held_out_indices)
    assert 4 <= held_out <= 16
    assert len(more["held_out_items"]) == held_out
    assert len(more["training_items"]) == Rhythm.of(3000, 32).count
    x0, cond = looks.feed.items(dataset.held_out_indices)
    draws = Rhythm.of(3000, 32).count // held_out
    known = held_out_loss(denoiser, x0, cond, LogNormal(), Karras(0.5), draws=draws, seed=5)
    assert np.array_equal(level.each, known.each)
    np.testing.assert_allclose(more["held_out_items"], known.items, rtol=1e-5)
    assert np.array_equal(looks.look(64, 0.1, denoiser)[0].each, level.each)


def test_a_second_sitting_looks_at_the_same_items_at_the_same_steps(dataset):
    """Whatever it is told of the budget's length, what was measured stays comparable."""
    whole, denoiser = _looks(dataset)
    at = [step for step in range(1, 1000) if whole.due(step, step / 3000) and whole.look(step, step / 3000, denoiser)]
    assert at == [step for step in _steps(3000, 32) if step < 1000]
    again, _ = _looks(dataset, rows=[{"step": 3, "loss": 1.0, "lr": 1e-3}, *whole.rows[:4]])
    on = [step for step in range(at[3] + 1, 1000) if again.due(step, step / 3000) and again.look(step, 0.5, denoiser)]
    assert on == at[4:]
    assert again.verdict == whole.verdict
    longer, _ = _looks(dataset, rows=whole.rows[:4], steps=100_000)
    assert len(longer.look(400, 0.004, denoiser)[1]["training_items"]) == len(whole.rows[0]["training_items"])


def test_other_data_begin_anew(dataset, tmp_path):
    looks, denoiser = _looks(dataset)
    looks.look(64, 0.02, denoiser)
    np.save(tmp_path / "other.npy", digits_like(90, seed=1)[0])
    other, _ = _looks(data.open(str(tmp_path / "other.npy")), rows=looks.rows)
    assert not other.rows
    assert len(_looks(dataset, rows=looks.rows)[0].rows) == 1


def test_a_run_by_minutes_takes_the_steps_it_comes_to_and_heeds_what_looks_cost(dataset):
    looks, denoiser = _looks(dataset, steps=None, seconds=600.0)
    at = []
    for step in range(1, 6000):
        if looks.due(step, step / 6000):
            looks.look(step, step / 6000, denoiser)
            looks._spent = looks._longest = 0.0  # as fast as on a machine that was never busy
            at.append(step)
    assert at == _steps(6000, 32)
    looks, _ = _looks(dataset, steps=None, seconds=600.0)
    looks._spent, looks._longest = 10.0, 1.0  # 11 s of 600 are allowed once 41 % is over
    assert not looks.due(2400, 0.4)
    assert looks.due(2700, 0.45)


def test_without_held_out_items_the_training_items_are_looked_at(dataset):
    looks, denoiser = _looks(dataclasses.replace(dataset, held_out=np.zeros(len(dataset), bool)))
    level, more = looks.look(64, 0.02, denoiser)
    assert level.mean == more["training"]
    assert more["held_out_items"] == []
    assert looks_of(looks.rows)[0].held_out == ()


def test_a_curve_is_bounded_and_keeps_means():
    curve, n = Curve(), 10_000
    for step in range(1, n + 1):
        curve.add(step, 3.0 + 2.0 * step, 1.0)
    curve.add(n + 1, math.nan, 1.0)
    step, loss, lr = curve.points().T
    assert POINTS <= len(step) <= 2 * POINTS
    np.testing.assert_allclose(loss, 3 + 2 * step)  # means of a line lie on it
    assert np.all(np.diff(step) > 0)
    assert np.all(lr == 1)
    np.testing.assert_allclose(smooth(np.full(50, 2.5)), 2.5)
    line = np.arange(100.0)
    np.testing.assert_allclose(smooth(line)[:80], line[:80], atol=0.51)  # even to both sides of each place


def test_the_picture_is_drawn_from_little_and_shows_the_looks(dataset):
    curve = np.array([[k, 1 / k, 1e-3] for k in range(1, 200)])
    assert draw(curve[:1], [], "too early to tell")
    looks, denoiser = _looks(dataset)
    for step in (64, 90, 127):
        looks.look(step, step / 3000, denoiser)
    red = {}
    for name, rows in (("bare", []), ("full", looks.rows)):
        pixels = np.asarray(Image.open(io.BytesIO(draw(curve, rows, ""))).convert("RGB")).astype(int)
        red[name] = int(((pixels[..., 0] - pixels[..., 2]) > 100).sum())
    assert red["bare"] == 0
    assert red["full"] > 100

"""What an A/B of recipes could get wrong without a word: pairs, errors, what is run again, a yardstick that moves with the recipe."""

import importlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from langevin import data
from langevin.config import parse, with_settings
from langevin.errors import LangevinError
from langevin.recipes import plan

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks are not installed")


@pytest.fixture
def levers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("levers")


@pytest.fixture
def lever_table(levers):
    return importlib.import_module("lever_table")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Smooth 28 x 28 pictures of two classes, as many as the default network for Fashion-MNIST wants."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("levers")
    basis = np.cos(np.arange(28)[:, None] * np.arange(4) * np.pi / 28)
    smooth = np.einsum("ia,nab,jb->nij", basis, rng.normal(size=(5600, 4, 4)), basis)
    images = np.clip(127 + 25 * smooth, 0, 255).astype(np.uint8)
    np.savez(root / "set.npz", images=images, labels=rng.integers(0, 2, len(images)))
    return root / "set.npz"


def _resolved(path, dataset, settings):
    values = with_settings({"data": {"path": str(path)}, "minutes": 1.0}, settings)
    return plan.resolve(parse(values), dataset)


def _row(seed, held_out, settings, **more):
    same = {
        "machine": "m",
        "code": "c",
        "python": "3",
        "torch": "2",
        "langevin": "0",
        "fingerprint": "f",
        "yardstick": "y",
    }
    terms = {"data": "d", "minutes": 3.0, "threads": 1, "at_once": 2, "samples": 0, "quality": False}
    counts = {"steps": 10, "pictures": 320, "when": "2026-01-01T00:00:00"}
    return {"terms": terms, "settings": settings, "seed": seed, "held_out": held_out, **same, **counts, **more}


def test_differences_are_taken_within_a_seed(levers, lever_table):
    """Seeds lie 0.1 apart and the lever 0.001 below each: unpaired, nothing would be seen; a seed of one side alone is none."""
    base = {seed: _row(seed, 0.1 * seed, {}) for seed in (3, 0, 1, 2)}
    lower = np.array([0.0008, 0.0012, 0.0010])
    own = {seed: _row(seed, 0.1 * seed - lower[seed], {"batch": "16"}) for seed in (2, 1, 0)} | {9: _row(9, 5.0, {})}
    found = lever_table.differences(own, base, "held_out")
    np.testing.assert_allclose(found, -lower, atol=1e-12)
    text = levers.tabled([*own.values(), *base.values()][::-1], {})
    assert f"(-0.00100 ± {lower.std(ddof=1) / np.sqrt(3):.5f})" in text


def test_scatter_is_pooled_about_each_levers_own_mean(lever_table):
    """Of levers with any effects whatever, sigma comes back within its own error."""
    rng = np.random.default_rng(0)
    each = [effect + 0.3 * rng.normal(size=3) for effect in np.linspace(-50, 50, 400)]
    value, freedom = lever_table.pooled([*each, np.array([7.0])])
    assert freedom == 800
    assert abs(value / 0.3 - 1) < 4 / np.sqrt(2 * freedom)


def test_the_last_line_of_a_run_counts_and_an_error_only_where_nothing_else_is(levers):
    lost = {**_row(0, 0.0, {"batch": "9"}), "error": "it burst"}
    again = [_row(0, 0.5, {}), _row(0, 0.7, {"batch": "9"}), _row(0, 0.4, {"batch": "9"})]
    assert "(-0.10000)" in levers.tabled([lost, *again], {})
    assert "it burst" not in levers.tabled([lost, *again], {})
    assert "it burst" in levers.tabled([lost, again[0]], {})


@pytest.mark.parametrize("other", [{"code": "x"}, {"fingerprint": "x"}, {"yardstick": "x"}, {"machine": "x"}])
def test_runs_that_cannot_be_compared_are_not(levers, other):
    text = levers.tabled([_row(0, 0.5, {}), _row(0, 0.4, {"batch": "9"}, **other)], {})
    assert "(-0.1" not in text
    assert text.count("| lever |") == 2


def test_what_is_done_is_not_run_again_and_everything_else_once(levers):
    terms = levers.Terms("d", 3.0, 1, 2, 0, False)
    a, b = {"batch": "8"}, {"batch": "9"}
    rows = [_row(0, 0.5, {}), {**_row(0, 0.0, a), "error": "it burst"}, _row(1, 0.5, b)]
    assert levers.left(terms, [{}, a, b, a], (0, 1), rows) == [(a, 0), (b, 0), (a, 1), ({}, 1)]
    assert len(levers.left(levers.Terms("d", 4.0, 1, 2, 0, False), [{}, a, b], (0, 1), rows)) == 6
    done = [_row(seed, 0.5, s) for s, seed in itertools.product(({}, a, b), (0, 1))]
    assert levers.left(terms, [{}, a, b], (0, 1), done) == []


def test_settings_lie_over_the_bases_and_are_named_by_what_they_change(levers):
    base = levers.settings_of("optimizer.name=muon batch=16")
    found = levers.settings_of("optimizer.name=muon batch=16", "batch=64 network.widths='[8, 8]'")
    assert found == {"batch": "64", "network.widths": "[8,8]", "optimizer.name": "muon"}
    assert levers.lever_of(found, base) == "`batch=64 network.widths=[8,8]`"
    assert levers.lever_of(base, base) == "base"
    assert levers.lever_of({}, base) == "`batch=(default) optimizer.name=(default)`"


def test_the_yardstick_does_not_move_with_what_a_run_changes(levers, pictures, monkeypatch):
    """A fresh Karras denoiser is one function of sigma / alpha on every schedule; its loss is 1 for data of its variance."""
    monkeypatch.setattr(levers, "ITEMS", 100)
    dataset = data.open(str(pictures))

    def loss(**settings):
        config = _resolved(pictures, dataset, settings)
        model = plan.make(config, dataset)
        feed = SimpleNamespace(items=lambda rows: (model.codec.encode(torch.from_numpy(dataset.take(rows))), {}))
        return levers.measured(SimpleNamespace(config=config, feed=feed), model, dataset)

    plain = loss()
    assert abs(plain["held_out"] - 1) < 0.1
    variance = loss(**{"schedule.name": "vp_linear", "weight.name": "snr", "times.name": "uniform"})
    line = loss(**{"schedule.name": "flow", "weight.name": "uniform", "times.mean": "3"})
    for moved in (variance, line):
        np.testing.assert_allclose(moved["levels"], plain["levels"], rtol=1e-4)
        np.testing.assert_allclose(moved["ratios"], plain["ratios"], rtol=1e-6)
        assert moved["yardstick"] == plain["yardstick"]
    assert loss(**{"parametrization.name": "x0"})["held_out"] > 1.2


def test_every_named_lever_changes_the_recipe_and_can_be_built(levers, pictures):
    dataset = data.open(str(pictures))
    plain = _resolved(pictures, dataset, {})
    dead = []
    for name, text in levers.LEVERS.items():
        try:
            config = _resolved(pictures, dataset, levers.settings_of(text))
            plan.check(config, dataset)
        except LangevinError as error:
            pytest.fail(f"{name}: {error}")
        dead += [name] if config == plain else []
    assert dead == [plain.precision]  # the one that the machine takes by itself

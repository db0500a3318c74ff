"""Figures on real digits: floors are what real items score, and each kind of damage is seen by the figure made for it."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from langevin.errors import DataError
from langevin.evaluation.features import Features, Gradients, Pca
from langevin.evaluation.figures import Figure, Yardstick, figures, table
from langevin.evaluation.labels import label_agreement
from langevin.evaluation.metrics.frechet import frechet


def by_name(found):
    return {f.name: f for f in found}


@pytest.fixture(scope="module")
def digits():
    """Training, held-out and further unseen digits, with labels."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    items, labels = (data.images * 15).astype(np.uint8)[order][..., None], data.target[order]
    return (items[:1000], items[1000:1400], items[1400:]), (labels[:1000], labels[1000:1400], labels[1400:])


@pytest.fixture(scope="module")
def yardstick(digits):
    train, held_out, _ = digits[0]
    return Yardstick.of(train, held_out, 390)


def test_real_items_score_the_floor(digits, yardstick):
    for f in yardstick.measure(digits[0][2]):
        assert abs(f.value - f.floor) < 4 * np.hypot(f.error, f.error), f


def test_the_floor_is_the_figure_of_the_held_out_items_themselves(yardstick):
    for f in yardstick.measure(yardstick.fresh):
        assert f.value == pytest.approx(f.floor, rel=1e-12)


def test_frechet_is_taken_against_all_training_items_at_the_stated_count(digits, yardstick):
    train, _, new = digits[0]
    found = by_name(yardstick.measure(new))
    for kind in (Pca, Gradients):
        features = kind.fit(train, 64)
        f = found[f"frechet[{kind.name}]"]
        assert (f.count, f.reference) == (390, "training (1,000)")
        assert f.value == pytest.approx(frechet(features(new[:390]), features(train)), rel=1e-9)


def test_floors_do_not_depend_on_what_is_measured(digits, yardstick):
    new = digits[0][2]
    assert [f.floor for f in yardstick.measure(new)] == [f.floor for f in yardstick.measure(255 - new)]


def test_more_noise_scores_worse(digits, yardstick):
    rng = np.random.default_rng(3)
    new = digits[0][2].astype(float)
    scores = []
    for sigma in (0, 15, 40, 90):
        noisy = np.clip(new + sigma * rng.normal(size=new.shape), 0, 255).astype(np.uint8)
        found = by_name(yardstick.measure(noisy))
        scores.append([found[n].value for n in ("frechet[pca]", "frechet[gradients]", "kernel[gradients]")])
    assert (np.diff(scores, axis=0) > 0).all()


def test_lost_classes_cost_recall_but_no_precision(digits, yardstick):
    (_, _, new), (_, _, labels) = digits
    few = np.concatenate([new[labels <= 1]] * 6)
    found = by_name(yardstick.measure(few))
    assert found["precision[gradients]"].value > 0.8
    assert found["recall[gradients]"].value < found["recall[gradients]"].floor - 0.3
    assert found["frechet[gradients]"].value > 3 * found["frechet[gradients]"].floor


def test_copies_of_training_items_are_all_found_and_beat_the_floor(digits, yardstick):
    found = by_name(yardstick.measure(digits[0][0][:390]))
    assert found["copies"].value == 1.0
    assert found["copies"].floor < 0.02
    assert found["frechet[pca]"].value < found["frechet[pca]"].floor


def test_half_copied_items_are_counted_and_the_limit_is_a_quantile_of_unseen_ones():
    """Training items on the integers; unseen ones u away with u uniform on [0, 1/2]: the limit is near 0.005."""
    rng = np.random.default_rng(6)
    train = np.arange(400.0)[:, None]
    held_out = rng.permutation(400)[:200, None] + rng.uniform(0, 0.5, (200, 1))
    made = np.concatenate([train[:100] + 1e-4, train[:100] + 0.05])
    found = by_name(figures(train, held_out, made))["copies"]
    assert found.value == 0.5
    assert found.floor == pytest.approx(0.01)


def test_both_sides_take_the_smaller_count(digits):
    train, held_out, new = digits[0]
    assert {f.count for f in figures(train, held_out[:100], new)} == {100}
    assert {f.count for f in figures(train, held_out, new[:64])} == {64}
    exact = by_name(Yardstick.of(train, held_out, 390).measure(new[:64]))  # fewer than were announced
    again = by_name(Yardstick.of(train, held_out, 64).measure(new[:64]))
    assert exact["frechet[pca]"].value == pytest.approx(again["frechet[pca]"].value, rel=1e-12)


def test_without_held_out_items_disjoint_halves_of_training_serve(digits):
    train, _, new = digits[0]
    yardstick = Yardstick.of(train, None, 5000)
    halves = np.concatenate([yardstick.train, yardstick.fresh]).reshape(1000, -1)
    np.testing.assert_array_equal(np.unique(halves, axis=0), np.unique(train.reshape(1000, -1), axis=0))
    found = by_name(yardstick.measure(new))
    assert found["frechet[pca]"].reference == "half of training (500)"
    assert "copies" not in found
    assert abs(found["frechet[pca]"].value - found["frechet[pca]"].floor) < 6 * found["frechet[pca]"].error


def test_the_seed_decides_which_items_are_taken(digits):
    train, held_out, new = digits[0]
    one, same, other = (figures(train, held_out, new[:100], seed=s) for s in (0, 0, 1))
    assert one == same
    assert one[0].value == other[0].value  # nothing drawn on this side
    assert one[0].floor != other[0].floor


def test_dimension_stays_well_below_the_count(digits):
    train, held_out, _ = digits[0]
    assert [f.dim for f in Yardstick.of(train, held_out, 40).features] == [10, 10]
    assert [f.dim for f in Yardstick.of(train, held_out, 400).features] == [64, 64]


def test_things_that_are_no_pictures_have_figures_in_pca():
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(6, 6))
    train, held_out, good, bad = (rng.normal(size=(n, 6)) @ mix for n in (500, 200, 200, 200))
    found = by_name(figures(train, held_out, good))
    assert set(found) == {f"{n}[pca]" for n in ("frechet", "kernel", "precision", "recall", "density", "coverage")} | {
        "copies"
    }
    assert by_name(figures(train, held_out, 2 * bad))["frechet[pca]"].value > 5 * found["frechet[pca]"].value


def test_what_cannot_be_measured_is_said(digits):
    train, held_out, new = digits[0]
    with pytest.raises(DataError, match="too few"):
        figures(train[:20], None, new)
    with pytest.raises(DataError, match="too few"):
        figures(train, held_out, new[:5])
    with pytest.raises(DataError, match="real ones"):
        figures(train, held_out, new / 255)
    with pytest.raises(DataError, match="not finite"):
        figures(train / 255, held_out / 255, np.full_like(new / 255, np.nan))


def test_jackknife_error_is_the_spread_over_draws():
    rng = np.random.default_rng(5)
    train, held_out = rng.normal(size=(2000, 4)), rng.normal(size=(300, 4))
    yardstick = Yardstick.of(train, held_out, 300)
    draws = [by_name(yardstick.measure(1.3 * rng.normal(size=(300, 4))))["frechet[pca]"] for _ in range(60)]
    spread = np.std([f.value for f in draws])
    assert np.sqrt(np.mean([f.error**2 for f in draws])) == pytest.approx(spread, rel=0.3)


def test_table_shows_value_interval_and_floor_side_by_side():
    rows = [
        Figure("frechet[pca]", 12.3456, 1.5, 1000, "training (5,000)", 0.21, False, 10.25, 11.03),
        Figure("recall[pca]", 0.5, 0.9, 10, "x", None, True),
    ]
    lines = table(rows).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["frechet[pca]", "↓", "12.35", "10.2", "to", "11", "1.5", "1,000", "training", "(5,000)"],
        ["recall[pca]", "↑", "0.5", "0.9", "10", "x"],
    ]
    assert lines[0].index("real floor") == lines[1].index("1.5 ") == lines[2].index("0.9")


def test_label_agreement_is_the_share_of_right_labels(digits):
    (train, held_out, new), (train_labels, held_labels, labels) = digits
    right = label_agreement(train, train_labels, held_out, held_labels, new, labels)
    assert right.value > 0.93
    assert right.floor > 0.93
    wrong = labels.copy()
    wrong[: len(labels) // 2] = (wrong[: len(labels) // 2] + 1) % 10
    half = label_agreement(train, train_labels, held_out, held_labels, new, wrong)
    assert half.value == pytest.approx(right.value / 2, abs=0.03)
    assert half.floor == right.floor
    with pytest.raises(DataError, match="labels"):
        label_agreement(train, train_labels, held_out, held_labels, new, labels[:-1])


def test_a_gap_counts_standard_errors_on_the_bad_side():
    worse = Figure("a", 5.0, 1.0, 9, "x", 3.0, False, floor_error=4.0)
    assert worse.gap == pytest.approx(0.8)
    assert replace(worse, higher_is_better=True).gap == pytest.approx(-0.8)
    assert np.isnan(replace(worse, floor_error=None).gap)


class _Long(Features):
    """Stands for a network of others: 300 numbers an item, and a name of its own for the distance."""

    name, digest, dim, frechet_name = "long", "00", 300, "fid"

    def __call__(self, items):
        return (items.reshape(len(items), -1) / 255) @ np.random.default_rng(0).normal(size=(items[0].size, 300))


def test_features_of_very_many_dimensions_give_their_distance_alone_under_their_own_name(digits):
    train, held_out, new = digits[0]
    found = by_name(Yardstick.of(train, held_out, 390, extra=[_Long()]).measure(new))
    assert "kernel[gradients]" in found
    assert not any("long" in name for name in found)
    assert found["fid"].value == pytest.approx(frechet(_Long()(new[:390]), _Long()(train)), rel=1e-9)

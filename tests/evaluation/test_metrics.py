"""Sliced Wasserstein, spectrum and two-sample figures against closed forms and SciPy; intervals against many draws."""

import numpy as np
import pytest
from scipy.stats import norm, wasserstein_distance_nd
from sklearn.decomposition import PCA

from langevin import registry
from langevin.errors import DataError
from langevin.evaluation.metrics.base import Estimate, Metric, groups, halves, jackknife
from langevin.evaluation.metrics.frechet import Frechet, by_influence, estimate, frechet_distance
from langevin.evaluation.metrics.kernel import Kernel
from langevin.evaluation.metrics.prdc import Prdc
from langevin.evaluation.metrics.sliced_wasserstein import SlicedWasserstein, frames, sliced_wasserstein
from langevin.evaluation.metrics.spectrum import Spectrum, rings
from langevin.evaluation.metrics.two_sample import TwoSample, told_apart


def test_every_file_is_a_metric_by_its_name():
    found = set(registry.names("langevin.evaluation.metrics", Metric))
    assert {"frechet", "kernel", "prdc", "sliced_wasserstein", "spectrum", "two_sample"} <= found


# how far a value may be trusted


def test_groups_deal_out_every_item_once():
    dealt = groups(103)
    np.testing.assert_array_equal(np.sort(np.concatenate(dealt)), np.arange(103))
    assert {len(g) for g in dealt} == {5, 6}


def test_jackknife_of_a_mean_is_its_standard_error_and_has_no_bias():
    x = np.random.default_rng(0).normal(3, 2, 4000)
    left = np.array([[np.delete(x, g).mean()] for g in groups(len(x))])
    found = jackknife(np.array([x.mean()]), left, biased=True)[0]
    assert found.error == pytest.approx(2 / 4000**0.5, rel=0.35)  # 19 degrees of freedom
    assert abs(found.bias) < 1e-12


def test_jackknife_takes_the_bias_of_a_square_off():
    """The square of a mean of n items is too large by s^2 / n, s^2 their variance: the jackknife finds it to rounding of the groups."""
    x = np.random.default_rng(1).normal(0.2, 1, 400)
    left = np.array([[np.delete(x, g).mean() ** 2] for g in groups(len(x))])
    found = jackknife(np.array([x.mean() ** 2]), left, biased=True)[0]
    means = np.array([x[g].mean() for g in groups(400)])
    assert found.bias == pytest.approx(means.var(ddof=1) / 20, rel=1e-9)


def test_halves_give_the_error_of_a_mean():
    x, y = np.random.default_rng(2).normal(size=(2, 500))
    error = halves(lambda a, b: np.array([x[a].mean() - y[b].mean()]), 500, 500)[0]
    assert error == pytest.approx(np.sqrt(2 / 500), rel=0.35)


def test_an_interval_is_about_the_value_less_its_bias():
    low, high = Estimate(10.0, 1.0, 4.0).interval
    assert (low + high) / 2 == pytest.approx(6.0)
    assert (high - low) / 2 == pytest.approx(2.086, abs=1e-3)  # Student's, 20 degrees of freedom


LAWS = {
    "same": (0.0, 1.0),
    "shifted": (0.25, 1.0),
    "wider": (0.0, 1.4),
}


def coverage(metric, law, pairs, count=150, dim=8):
    shift, width = LAWS[law]
    rng, truth = np.random.default_rng(5), {}
    truth["frechet"] = frechet_distance(np.zeros(dim), np.eye(dim), np.full(dim, shift), width**2 * np.eye(dim))
    draws: dict[str, list[Estimate]] = {}
    for _ in range(pairs):
        a, b = rng.normal(size=(count, dim)), shift + width * rng.normal(size=(count, dim))
        for found in metric.measure(a, b):
            draws.setdefault(found.name, []).append(found.estimate)
    held = {}
    for name, estimates in draws.items():
        true = truth.get(name, np.mean([e.value for e in estimates]))
        held[name] = np.mean([low <= true <= high for low, high in (e.interval for e in estimates)])
    return held


@pytest.mark.parametrize("law", LAWS)
def test_intervals_of_a_frechet_distance_hold_that_of_the_laws(law):
    (held,) = coverage(Frechet(), law, 60).values()
    assert 0.86 <= held <= 1.0  # 60 draws: 0.95 within three standard errors


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "metric", [Frechet(), Kernel(), Prdc(), SlicedWasserstein(), TwoSample()], ids=lambda m: type(m).__name__
)
def test_intervals_hold_the_truth_in_90_to_98_of_100_pairs(metric, law):
    for name, held in coverage(metric, law, 200, count=300).items():
        print(f"{law:8} {name:20} {held:.3f}")
        assert 0.88 <= held <= 0.995, name  # 200 draws: two standard errors about 0.90 and 0.98


# sliced Wasserstein


def test_sliced_wasserstein_of_a_shift_is_its_square_over_the_dimension():
    x, v = np.random.default_rng(3).normal(size=(50, 6)), np.arange(6.0)
    assert sliced_wasserstein(x, x + v) == pytest.approx(v @ v / 6, rel=1e-12)


def test_frames_are_orthonormal():
    ways = frames(5, 12, 0)
    assert ways.shape == (5, 15)
    np.testing.assert_allclose(ways[:, 5:10].T @ ways[:, 5:10], np.eye(5), atol=1e-12)


def test_in_one_dimension_it_is_scipys_distance_of_quantile_functions():
    """Of normal laws: (m - m')^2 + (s - s')^2; and unequal counts against the plain integral."""
    q = (np.arange(200_000) + 0.5) / 200_000
    a, b = norm.ppf(q)[:, None], norm.ppf(q, 0.7, 1.5)[:, None]
    assert sliced_wasserstein(a, b) == pytest.approx(0.7**2 + 0.5**2, rel=1e-3)
    rng = np.random.default_rng(4)
    a, b = np.sort(rng.normal(size=7)), np.sort(rng.normal(size=12))
    p = (np.arange(84) + 0.5) / 84
    plain = ((a[(p * 7).astype(int)] - b[(p * 12).astype(int)]) ** 2).mean()
    assert sliced_wasserstein(a[:, None], b[:, None]) == pytest.approx(plain, rel=1e-12)


def test_it_is_a_lower_bound_of_scipys_distance_in_space():
    """SW^2 <= W_1^2-like distances of space for a shift: equal when both sets are one point."""
    a, b = np.zeros((1, 3)), np.array([[3.0, 0.0, 4.0]])
    assert 3 * sliced_wasserstein(a, b) == pytest.approx(wasserstein_distance_nd(a, b) ** 2, rel=1e-12)


def test_sliced_wasserstein_without_a_group_is_that_of_the_others():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(43, 3)), rng.normal(size=(61, 3)) + 0.4
    left = np.array([[sliced_wasserstein(np.delete(a, g, 0), b)] for g in groups(43)])
    right = np.array([[sliced_wasserstein(a, np.delete(b, g, 0))] for g in groups(61)])
    expected = jackknife(np.array([sliced_wasserstein(a, b)]), left, right)[0]
    (found,) = SlicedWasserstein().measure(a, b)
    assert found.estimate == pytest.approx(expected, rel=1e-9)


# Frechet


def test_frechet_without_groups_is_that_of_the_others():
    """The bias against distances computed one by one, from the items left."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(60, 4)), 1.3 * rng.normal(size=(85, 4)) + 0.2

    def distance(x, y):
        return frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))

    left = np.array([[distance(np.delete(a, g, 0), b)] for g in groups(60)])
    right = np.array([[distance(a, np.delete(b, g, 0))] for g in groups(85)])
    expected = jackknife(np.array([distance(a, b)]), left, right, biased=True)[0]
    (found,) = Frechet().measure(a, b)
    assert found.estimate.value == pytest.approx(expected.value, rel=1e-9)
    assert found.estimate.bias == pytest.approx(expected.bias, rel=1e-6)
    assert 0.3 * expected.error < found.estimate.error <= expected.error


def test_in_many_dimensions_the_error_is_that_of_the_jackknife_for_laws_that_differ():
    rng = np.random.default_rng(15)
    a, b = rng.normal(size=(1200, 6)), 1.5 * rng.normal(size=(900, 6)) + 0.5
    plain, quick = estimate(a, b), by_influence(a, b)
    assert quick.value == pytest.approx(plain.value, rel=1e-12)
    assert quick.error == pytest.approx(plain.error, rel=0.3)  # 19 degrees of freedom there
    spread = np.std(
        [by_influence(rng.normal(size=(1200, 6)), 1.5 * rng.normal(size=(900, 6)) + 0.5).value for _ in range(80)]
    )
    assert quick.error == pytest.approx(spread, rel=0.25)


def test_the_bias_of_a_frechet_distance_is_what_it_has_too_much_in_the_mean():
    rng = np.random.default_rng(8)
    found = [Frechet().measure(*rng.normal(size=(2, 80, 6)))[0].estimate for _ in range(60)]
    values, corrected = np.array([(f.value, f.value - f.bias) for f in found]).T
    assert values.mean() > 5 * values.std() / 60**0.5  # the laws are one, the distance is not 0
    assert abs(corrected.mean()) < 0.1 * values.mean()


# spectrum


def test_power_of_a_wave_lies_in_its_ring():
    x = np.arange(16)
    items = np.stack([np.cos(2 * np.pi * k * x / 16)[:, None] * np.ones(16) for k in (0, 2, 5)])[..., None]
    power = rings(items)
    assert power.shape == (3, 8)
    assert power[0].max() < 1e-20  # the mean has no part
    assert power[1].argmax() == 1
    assert power[2].argmax() == 4


def test_white_noise_has_the_same_power_in_every_ring_and_twice_the_noise_has_6_decibels_more():
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(2, 3000, 8, 8, 3))
    np.testing.assert_allclose(rings(a).mean(0), 1.0, rtol=0.05)
    found = Spectrum().measure(rings(a), rings(2 * b))[0].estimate
    assert found.value == pytest.approx(20 * np.log10(2), abs=0.05)
    low, high = found.interval
    assert low < 20 * np.log10(2) < high


def test_parseval_in_one_dimension():
    """All rings of a signal of odd length, each of two waves, hold its variance."""
    items = np.random.default_rng(10).normal(size=(4, 15, 1))
    power = rings(items)
    np.testing.assert_allclose(2 * power.sum(1) / 15, items.var(axis=(1, 2)), rtol=1e-12)


def test_silence_is_not_infinitely_far_from_silence():
    flat = np.zeros((5, 8, 8, 1))
    assert Spectrum().measure(rings(flat), rings(flat))[0].estimate.value == 0.0


def test_blur_is_seen_where_pixels_hardly_see_it():
    rng = np.random.default_rng(11)
    real = rng.normal(size=(200, 16, 16, 1)).cumsum(1).cumsum(2)
    blurred = (real + np.roll(real, 1, 1) + np.roll(real, 1, 2) + np.roll(real, (1, 1), (1, 2))) / 4
    flat = PCA(8).fit(real.reshape(200, -1))
    near, far = (
        Frechet().measure(*(flat.transform(x.reshape(200, -1)) for x in (real, y)))[0] for y in (blurred, 2 * real)
    )
    assert near.estimate.value < 0.2 * far.estimate.value
    assert Spectrum().measure(rings(real), rings(blurred))[0].estimate.value > 3


# two samples


def test_told_apart_as_often_as_the_best_rule_would():
    """N(0, 1) and N(m, 1) along one axis: the best rule is right with chance Phi(m / 2)."""
    rng = np.random.default_rng(12)
    real, made = rng.normal(size=(2, 3000, 3))
    made[:, 1] += 1.2
    found = TwoSample(most=3000).measure(real, made)[0].estimate
    assert found.value == pytest.approx(norm.cdf(0.6), abs=4 * found.error)
    assert found.error < 0.012


def test_a_spread_is_told_apart_although_no_line_does():
    rng = np.random.default_rng(13)
    assert told_apart(rng.normal(size=(1000, 2)), 2 * rng.normal(size=(1000, 2))).mean() > 0.65


def test_one_law_is_not_told_apart():
    found = TwoSample().measure(*np.random.default_rng(14).normal(size=(2, 1500, 5)))[0].estimate
    assert abs(found.value - 0.5) < 3 * found.error


@pytest.mark.parametrize(
    "metric", [Frechet(), SlicedWasserstein(), TwoSample(), Prdc()], ids=lambda m: type(m).__name__
)
def test_two_items_are_too_few(metric):
    with pytest.raises(DataError):
        metric.measure(np.eye(2), np.eye(2))

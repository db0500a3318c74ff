"""Each time law by its law."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from langevin.diffusion.schedules import VE, Cosine, Flow, Tabulated, VPLinear
from langevin.diffusion.times import LogitNormal, LogNormal, LossAware, TimeLaw, Uniform
from langevin.registry import names
from langevin.rng import uniforms

SCHEDULES = [VE(), VPLinear(), Flow(), Cosine(), Tabulated.linear()]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_log_normal(schedule) -> None:
    u = torch.from_numpy(np.random.default_rng(0).random(5000))
    t, importance = LogNormal(-0.8, 1.1)(u, schedule)
    log_ratio = -0.5 * schedule.log_snr(t).numpy()
    assert stats.kstest(log_ratio, "norm", args=(-0.8, 1.1)).pvalue > 1e-3
    assert bool((importance == 1).all())
    assert np.all(np.diff(t[torch.argsort(u)].numpy()) >= 0)  # stratified u give stratified levels


def test_log_normal_stops_at_the_end_of_the_schedule() -> None:
    t, _ = LogNormal(8.0, 0.1)(uniforms(16, 0), Tabulated.scaled_linear())
    assert bool((t == 1).all())


def test_logit_normal() -> None:
    u = torch.from_numpy(np.random.default_rng(1).random(5000))
    t, importance = LogitNormal(0.3, 1.4)(u, Flow())
    assert stats.kstest(torch.logit(t).numpy(), "norm", args=(0.3, 1.4)).pvalue > 1e-3
    assert bool((importance == 1).all())


def test_uniform() -> None:
    u = uniforms(32, 0)
    t, importance = Uniform()(u, Flow())
    assert torch.equal(t, u) and bool((importance == 1).all())


@pytest.mark.parametrize("law", [cls() for cls in names("langevin.diffusion.times", TimeLaw).values()])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_times_lie_in_the_interval_for_the_most_extreme_numbers(law: TimeLaw, schedule) -> None:
    u = torch.tensor([2.0**-53, 1e-9, 0.5, 1 - 1e-9, 1 - 2.0**-53], dtype=torch.float64)
    t, importance = law(u, schedule)
    assert bool(((t > 0) & (t <= 1)).all()) and bool((importance > 0).all())


def trained(bins: int = 8) -> LossAware:
    law, loss = LossAware(bins, warm=3), lambda t: 1 + 4 * t
    for step in range(40):
        t, _ = law(uniforms(64, 7, step), Flow())
        law = law.update(t, loss(t))
    return law


def test_loss_aware_is_uniform_until_it_has_seen_every_part() -> None:
    law = LossAware(4, warm=2)
    assert torch.equal(law.probabilities, torch.full((4,), 0.25, dtype=torch.float64))
    law = law.update(torch.tensor([0.1, 0.1, 0.3, 0.3, 0.6, 0.6, 0.9], dtype=torch.float64), torch.ones(7))
    assert torch.equal(law.probabilities, torch.full((4,), 0.25, dtype=torch.float64))
    law = law.update(torch.tensor([0.99], dtype=torch.float64), torch.full((1,), 3.0))
    # moments 1, 1, 1 and .9 * 1 + .1 * 9
    p = np.sqrt([1, 1, 1, 1.8])
    np.testing.assert_allclose(law.probabilities, 0.999 * p / p.sum() + 0.001 / 4, rtol=1e-12)


def test_loss_aware_draws_with_its_probabilities() -> None:
    law = trained()
    t, importance = law(torch.from_numpy(np.random.default_rng(3).random(40000)), Flow())
    part = (t * 8).long()
    counts = torch.bincount(part, minlength=8).numpy()
    p = law.probabilities.numpy()
    assert p[-1] > 2.5 * p[0] and abs(p.sum() - 1) < 1e-12
    assert stats.chisquare(counts, 40000 * p).pvalue > 1e-3
    inside = (t * 8 - part)[part == 7].numpy()
    assert stats.kstest(inside, "uniform").pvalue > 1e-3
    np.testing.assert_allclose(importance, 1 / (8 * p[part]), rtol=1e-12)


def test_loss_aware_follows_the_root_mean_square_of_the_loss() -> None:
    middle = (np.arange(8) + 0.5) / 8
    expected = np.sqrt((1 + 4 * middle) ** 2 + (4 / 8) ** 2 / 12)
    np.testing.assert_allclose(trained().probabilities, expected / expected.sum(), rtol=0.05)


def test_importance_leaves_the_mean_what_it_is() -> None:
    """Mean over the law of importance * f = mean of f over uniform t, by a fine midpoint rule in u."""
    law, num = trained(), 200000
    u = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    t, importance = law(u, Flow())
    for f, exact in ((lambda t: 1 + 4 * t, 3.0), (lambda t: (6 * t).exp(), (math.exp(6) - 1) / 6)):
        assert abs((importance * f(t)).mean().item() / exact - 1) < 1e-4


def test_a_loss_that_is_not_finite_is_forgotten() -> None:
    law, t = trained(), torch.tensor([0.1, 0.1, 0.9], dtype=torch.float64)
    found = law.update(t, torch.tensor([2.0, math.nan, math.inf]))
    expected = law.update(t[:1], torch.tensor([2.0]))
    assert torch.equal(found.moments, expected.moments) and torch.equal(found.counts, expected.counts)


def test_losses_of_zero_leave_it_uniform() -> None:
    law = LossAware(4, warm=1).update((torch.arange(4, dtype=torch.float64) + 0.5) / 4, torch.zeros(4))
    torch.testing.assert_close(law.probabilities, torch.full((4,), 0.25, dtype=torch.float64), rtol=1e-12, atol=0)


def test_an_update_gives_a_new_law() -> None:
    law = trained()
    before = law.moments.clone()
    law.update(torch.tensor([0.5], dtype=torch.float64), torch.tensor([100.0]))
    assert torch.equal(law.moments, before)

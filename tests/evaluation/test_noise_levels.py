"""Losses at fixed noise: what they are where the optimal denoiser is known, to the bit, with honest errors."""

import numpy as np
import torch

from langevin.diffusion import GaussianDiffusion
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.times import LogNormal
from langevin.diffusion.weights import Karras
from langevin.evaluation.noise_levels import LEVELS, LevelLoss, held_out_loss
from langevin.exact.gaussian import GaussianDenoiser

PROCESS, LAW, WEIGHT = GaussianDiffusion(VE()), LogNormal(), Karras(0.5)
SPREAD = 0.7


def _loss(count=600, draws=1, seed=0, size=24) -> LevelLoss:
    x0 = SPREAD * torch.randn(count, size, generator=torch.Generator().manual_seed(1))
    denoiser = GaussianDenoiser(PROCESS, torch.zeros(size), torch.tensor(SPREAD))
    return held_out_loss(denoiser, x0, {}, LAW, WEIGHT, draws=draws, seed=seed)


def test_the_loss_of_the_optimal_denoiser_is_its_posterior_variance():
    """w s^2 sigma^2 / (s^2 + sigma^2) at every level, and the standard error of items says how near that is met."""
    found = _loss()
    sigma = np.array(found.ratios)
    expected = (sigma**-2 + 1 / 0.25) * SPREAD**2 * sigma**2 / (SPREAD**2 + sigma**2)
    error = found.each.std(0, ddof=1) / np.sqrt(len(found.each))
    z = (np.array(found.losses) - expected) / error
    assert len(z) == LEVELS
    assert np.abs(z).max() < 3.5
    assert 0.3 < np.sqrt(np.mean(z**2)) < 2
    assert np.isclose(found.mean, np.mean(found.losses))
    assert np.isclose(np.mean(found.items), found.mean)


def test_the_same_weights_give_the_same_bits_and_another_seed_gives_others():
    assert np.array_equal(_loss(40).each, _loss(40).each)
    assert not np.isclose(_loss(40, seed=1).each, _loss(40).each).any()


def test_an_items_losses_do_not_depend_on_the_items_after_it():
    np.testing.assert_allclose(_loss(40).each, _loss(400).each[:40], rtol=1e-6)


def test_draws_leave_the_mean_and_lower_the_scatter():
    """An item's loss at a level is its expectation and noise; nine draws leave a ninth of the variance of that."""
    few, many = _loss(300), _loss(300, draws=9)
    assert np.abs(few.each.mean(0) - many.each.mean(0)).max() < 0.1
    single = _loss(1, draws=1).each
    assert single.shape == (1, LEVELS)
    seeds = [(_loss(1, seed=s).each, _loss(1, draws=9, seed=s).each) for s in range(150)]
    one, nine = (np.array([pair[k] for pair in seeds]).var(0).mean() for k in (0, 1))
    assert 6 < one / nine < 13


def test_the_error_of_a_gap_between_other_items_is_honest():
    """Two samples of one law lie apart by more than 1.96 errors in one of twenty pairs."""
    rng = np.random.default_rng(0)
    apart = []
    for _ in range(400):
        a, b = (LevelLoss((1.0,) * LEVELS, rng.lognormal(sigma=0.5, size=(n, LEVELS))) for n in (40, 60))
        gap, error = a.above(b)
        apart.append(np.abs(gap / error) > 1.96)
    assert 0.03 < np.mean(apart) < 0.08
    shifted = LevelLoss(a.ratios, a.each + 0.25)
    np.testing.assert_allclose(shifted.above(a)[0], 0.25)
    assert np.isnan(LevelLoss(a.ratios, a.each[:1]).above(a)[1]).all()

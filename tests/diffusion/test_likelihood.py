"""Likelihoods against the closed-form density of a mixture and of a Gaussian."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from langevin import rng
from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion
from langevin.diffusion.likelihood import (
    Levels,
    _decoder,
    estimate_bound,
    estimate_log_prob,
    log_prob_flow,
    negative_elbo,
)
from langevin.diffusion.schedules import VE, Cosine, Flow, Tabulated, VPLinear
from langevin.exact import GaussianDenoiser, MixtureDenoiser, identities
from langevin.exact.oracles import oracle_a

F64 = torch.float64
POINTS = {-1.0: -0.736128, 0.0: -1.483614, 0.6: -0.359323, 1.5: -2.890573}


@pytest.mark.parametrize(
    ("schedule", "num_steps", "within"), [(VE(), 768, 3e-8), (VPLinear(), 256, 3e-6), (Cosine(), 256, 3e-6)]
)
def test_flow_density_of_a_mixture(schedule, num_steps: int, within: float) -> None:
    assert identities.flow_likelihood(schedule, num_steps) < within


def test_flow_density_is_of_fourth_order() -> None:
    coarse, fine = (identities.flow_likelihood(VE(), n) for n in (128, 256))
    assert abs(math.log2(coarse / fine) - 4) < 0.15


@pytest.mark.parametrize(("x0", "expected"), POINTS.items())
def test_bound_of_the_exact_denoiser_is_the_density(x0: float, expected: float) -> None:
    found = [identities.elbo(schedule, x0) for schedule in (VE(), VPLinear(), Flow())]
    closed = oracle_a(VE()).log_prob(torch.tensor([[x0]], dtype=F64)).item()
    assert abs(closed - expected) < 1e-6
    assert abs(found[0] - closed) < 1e-6
    assert max(found) - min(found) < 1e-10  # the schedule does not matter


class Off(Denoiser):
    """The exact mean, and as much as `by` sin(3 y) away from it."""

    def __init__(self, exact: Denoiser, by: float) -> None:
        super().__init__()
        self.exact, self.process, self.by = exact, exact.process, by

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
        alpha, _ = self.process.coefficients(t, x_t)
        return Gaussian(self.exact(x_t, t).mean + self.by * torch.sin(3 * x_t / alpha))


def test_gap_of_an_imperfect_denoiser_is_its_weighted_squared_error() -> None:
    """E over data of the bound's gap = integral of r^-2 E|x0_hat - exact|^2 dl, for any denoiser; it is not negative."""
    exact, num, levels = oracle_a(VE()), 4000, 64
    u = rng.uniforms(levels, 0).repeat_interleave(num // levels * 10)
    x0 = exact.sample(len(u), _normal(1))
    y_noise = _normal(2)(x0)

    def bound(denoiser: Denoiser) -> Tensor:
        return negative_elbo(denoiser, x0, u, lambda like: y_noise, ratio_min=0.05, ratio_max=20.0)

    for by in (0.05, 0.3):
        off = Off(exact, by)
        gap = bound(off) - bound(exact)
        log_ratio = math.log(0.05) + math.log(20 / 0.05) * u
        t = VE().inverse(-2 * log_ratio)
        y = x0 + log_ratio.exp()[:, None] * y_noise
        error = (off(y, t).mean - exact(y, t).mean).square().sum(1)
        weighted = math.log(20 / 0.05) * torch.exp(-2 * log_ratio) * error
        difference = gap - weighted  # the cross term, zero in the mean
        assert abs(difference.mean().item()) < 4 * difference.std().item() / math.sqrt(len(u))
        assert weighted.mean() > 10 * abs(difference.mean())


def _normal(seed: int) -> rng.Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


def correlated(schedule) -> GaussianDenoiser:
    covariance = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.3], [0.0, 0.3, 0.5]], dtype=F64)
    mean = torch.tensor([0.2, -0.1, 0.4], dtype=F64)
    return GaussianDenoiser(GaussianDiffusion(schedule), mean, covariance=covariance)


def test_flow_density_in_three_dimensions_and_its_estimate() -> None:
    denoiser, x = correlated(VPLinear()), torch.tensor([[0.5, 0.3, -0.2], [1.0, -1.0, 0.1]], dtype=F64)
    exact = log_prob_flow(denoiser, x, ratio_max=1e5)  # the mean counts for mean / ratio_max there
    torch.testing.assert_close(exact, denoiser.log_prob(x), rtol=0, atol=2e-4)
    # all eight Rademacher probes: the mean of the estimate is the exact trace
    signs = [torch.tensor([a, b, c], dtype=F64) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    estimates = torch.stack(
        [log_prob_flow(denoiser, x, ratio_max=150.0, num_steps=64, probe=s.expand(2, 3)) for s in signs]
    )
    same = log_prob_flow(denoiser, x, ratio_max=150.0, num_steps=64)
    assert estimates.std(0).min() > 0.1  # each alone is far off
    torch.testing.assert_close(estimates.mean(0), same, rtol=0, atol=1e-10)


def test_bound_by_sampling_is_unbiased_on_pictures() -> None:
    """Shape (1, 2, 2) data: the mean of many draws is the closed-form density."""
    mean = torch.tensor([[[0.1, -0.2], [0.3, 0.0]]], dtype=F64)
    denoiser = GaussianDenoiser(GaussianDiffusion(Flow()), mean, torch.full_like(mean, 0.6))
    x0 = torch.tensor([[[0.4, 0.4], [-0.5, 0.2]]], dtype=F64)
    draws = negative_elbo(
        denoiser, x0.expand(20000, 1, 2, 2), rng.uniforms(20000, 3), _normal(4), ratio_min=1e-3, ratio_max=1e3
    )
    assert abs(draws.mean().item() + denoiser.log_prob(x0[None]).item()) < 4 * draws.std().item() / math.sqrt(20000)


def test_no_denoiser_is_asked_beyond_the_end_of_its_schedule() -> None:
    class Watched(Denoiser):
        latest = 0.0

        def __init__(self) -> None:
            super().__init__()
            self.process = GaussianDiffusion(Tabulated.scaled_linear())  # ends at sigma / alpha = 14.6

        def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
            Watched.latest = max(Watched.latest, t.max().item())
            return Gaussian(0.5 * x_t)

    x = torch.zeros(8, 1, dtype=F64)
    log_prob_flow(Watched(), x, num_steps=8)
    negative_elbo(Watched(), x, torch.full((8,), 1 - 1e-12, dtype=F64), torch.zeros_like)
    assert 0.99 < Watched.latest < 1 + 1e-9


def test_float32_is_near_float64() -> None:
    denoiser, x = oracle_a(VPLinear()), torch.tensor([[-1.0], [0.2]], dtype=F64)
    np.testing.assert_allclose(log_prob_flow(denoiser, x.float()), log_prob_flow(denoiser, x), atol=2e-3)


GREYS = Levels(-1.0, 2 / 15, 16)


def discretised() -> tuple[MixtureDenoiser, Tensor, Tensor]:
    """Data on 16 levels, binned from oracle A and cut off: the exact denoiser, the levels (16, 1), their log probabilities."""
    values = GREYS.low + GREYS.spacing * torch.arange(16, dtype=F64)[:, None]
    continuous = oracle_a(VE())
    p = continuous.cdf(values + GREYS.spacing / 2) - continuous.cdf(values - GREYS.spacing / 2)
    p = p / p.sum()
    return MixtureDenoiser(GaussianDiffusion(VE()), p, values, torch.full((16,), 1e-9, dtype=F64)), values, p.log()


def bound_by_quadrature(denoiser: Denoiser, values: Tensor, ratio_min: float) -> Tensor:
    """(K,) the bound of each value, free of random error."""
    spots, nodes = 300, 80
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    u = ((torch.arange(spots, dtype=F64) + 0.5) / spots).repeat_interleave(nodes)
    found = []
    for value in values:
        x = value.expand(len(u), 1)
        terms = negative_elbo(
            denoiser, x, u, lambda like: z.repeat(spots)[:, None], levels=GREYS, ratio_min=ratio_min, ratio_max=1e3
        )
        found.append((terms * (w / w.sum()).repeat(spots)).sum() / spots)
    return torch.stack(found)


def test_bound_of_discrete_data_is_their_probability_where_the_decoder_is_sure() -> None:
    denoiser, values, log_p = discretised()
    found = bound_by_quadrature(denoiser, values, GREYS.spacing / 12)
    torch.testing.assert_close(found, -log_p, rtol=0, atol=2e-3)
    bits = (found * log_p.exp()).sum() / math.log(2)
    entropy = -(log_p * log_p.exp()).sum() / math.log(2)
    assert abs(bits - entropy) < 1e-3


def test_bound_of_discrete_data_is_a_bound_wherever_it_is_cut() -> None:
    """With a decoder that is not the exact one, or a denoiser that is not, the mean number of bits is above the entropy."""
    denoiser, values, log_p = discretised()
    entropy = -(log_p * log_p.exp()).sum()
    above = {}
    for share in (0.25, 0.5, 1.0, 2.0):
        above[share] = (
            (bound_by_quadrature(denoiser, values, share * GREYS.spacing) * log_p.exp()).sum() - entropy
        ).item()
        assert above[share] > -1e-6, share
    assert above[0.25] < above[0.5] < above[1.0] < above[2.0] < 0.2
    off = bound_by_quadrature(Off(denoiser, 0.1), values, GREYS.spacing / 2)
    assert (off * log_p.exp()).sum() - entropy > above[0.5] + 0.05


def test_decoder_is_normalised_over_the_levels() -> None:
    for ratio in (GREYS.spacing / 20, GREYS.spacing, 1.0):
        values = GREYS.low + GREYS.spacing * torch.arange(16, dtype=F64)[:, None]
        for y in (-1.4, -0.99, 0.0, 0.31, 1.2):
            p = torch.exp(-_decoder(values, torch.full((16, 1), y, dtype=F64), ratio, GREYS))
            assert p.sum().item() == pytest.approx(1, abs=1e-9), (ratio, y)
    two = _decoder(values[:2].reshape(1, 2), values[1:3].reshape(1, 2) + 0.01, 0.1, GREYS)
    one = [_decoder(values[k : k + 1], values[k + 1 : k + 2] + 0.01, 0.1, GREYS) for k in (0, 1)]
    torch.testing.assert_close(two, one[0] + one[1], rtol=1e-12, atol=0)


def test_estimates_lie_as_near_as_they_say() -> None:
    denoiser, values, log_p = discretised()
    found = estimate_bound(
        denoiser, values.repeat(40, 1), rng.keyed(range(640)), draws=32, levels=GREYS, ratio_min=GREYS.spacing / 12
    )
    away = (found.value + log_p.repeat(40)).reshape(40, 16).mean(0) / (
        found.random_error.square().reshape(40, 16).mean(0).sqrt() / math.sqrt(40)
    )
    assert away.abs().max() < 4
    alone = estimate_bound(
        denoiser, values[3:4], rng.keyed([16 * 7 + 3]), draws=32, levels=GREYS, ratio_min=GREYS.spacing / 12
    )
    torch.testing.assert_close(alone.value[0], found.value[16 * 7 + 3], rtol=1e-10, atol=1e-10)


def test_flow_estimates_know_their_errors() -> None:
    denoiser, x = correlated(VPLinear()), torch.tensor([[0.5, 0.3, -0.2], [1.0, -1.0, 0.1]], dtype=F64)
    truth = log_prob_flow(denoiser, x, num_steps=1024, ratio_max=150.0)
    exact = estimate_log_prob(denoiser, x, num_steps=64, ratio_max=150.0)
    assert torch.equal(exact.random_error, torch.zeros(2, dtype=F64))
    real = (exact.value - truth).abs()
    assert ((exact.step_error / real - 1).abs() < 0.25).all()  # an error of fourth order, seen by halving
    guess = estimate_log_prob(denoiser, x, num_steps=32, ratio_max=150.0, probes=24, noise=rng.keyed([1, 2]))
    assert ((guess.value - truth).abs() < 4 * guess.random_error + 1e-3).all()
    assert (guess.random_error > 0.01).all()
    with pytest.raises(ValueError, match="keyed"):
        estimate_log_prob(denoiser, x, probes=2)

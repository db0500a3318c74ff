"""Closed-form denoisers against Tweedie's formulas, Bayes' rule and each other."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from langevin.diffusion import GaussianDiffusion, Schedule
from langevin.diffusion.schedules import VE, Cosine, Flow, VPLinear
from langevin.exact import EmpiricalDenoiser, GaussianDenoiser, MixtureDenoiser, identities
from langevin.exact import gaussian as gaussians
from langevin.exact.oracles import flow_map, log_uniform, oracle_a, schedules, starts

F64 = torch.float64
EVERY = schedules()
every_schedule = pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY)


def normal(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


def plane(schedule: Schedule) -> MixtureDenoiser:
    means = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.5]], [[0.0, -1.0]]], dtype=F64)
    stds = torch.tensor([[[0.3, 0.2]], [[0.1, 0.5]], [[0.4, 0.4]]], dtype=F64)
    return MixtureDenoiser(GaussianDiffusion(schedule), torch.tensor([2.0, 1.0, 1.0]), means, stds)


def full(schedule: Schedule) -> GaussianDenoiser:
    covariance = torch.tensor([[1.0, 0.7], [0.7, 0.9]], dtype=F64)
    return GaussianDenoiser(GaussianDiffusion(schedule), torch.tensor([[0.3, -0.4]], dtype=F64), covariance=covariance)


def points(schedule: Schedule) -> EmpiricalDenoiser:
    return EmpiricalDenoiser(GaussianDiffusion(schedule), normal(5)(torch.empty(7, 1, 2, dtype=F64)))


@every_schedule
def test_tweedie_on_the_line(schedule: Schedule) -> None:
    assert identities.tweedie(schedule) < 1e-8


@every_schedule
@pytest.mark.parametrize("make", [plane, full, points])
def test_tweedie_in_the_plane(make, schedule: Schedule) -> None:
    """mean = (x + sigma^2 score) / alpha; var = sigma^2 / alpha times the diagonal of d mean / dx."""
    denoiser = make(schedule)
    for t in log_uniform(schedule, 4, 5.0, 0.1):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x = (alpha * normal(0)(torch.empty(9, 1, 2, dtype=F64))).requires_grad_()
        (score,) = torch.autograd.grad(denoiser.log_prob(x, t).sum(), x)
        posterior = denoiser(x, t)
        torch.testing.assert_close(posterior.mean, (x + sigma**2 * score) / alpha, rtol=0, atol=1e-8)
        for d in range(2):
            (rise,) = torch.autograd.grad(posterior.mean[:, 0, d].sum(), x, retain_graph=True)
            expected = sigma**2 / alpha * rise[:, 0, d]
            torch.testing.assert_close(posterior.var.expand_as(x)[:, 0, d], expected, rtol=0, atol=1e-8)


@every_schedule
@pytest.mark.parametrize("make", [plane, full, points, oracle_a])
def test_both_ends(make, schedule: Schedule) -> None:
    denoiser = make(schedule)
    x = normal(1)(torch.empty(5, *denoiser.sample(1, normal(0)).shape[1:], dtype=F64))
    at_data = denoiser(x, torch.zeros((), dtype=F64))
    if make is points:
        nearest = torch.cdist(x.flatten(1), denoiser.points.flatten(1)).argmin(1)
        torch.testing.assert_close(at_data.mean, denoiser.points[nearest], rtol=0, atol=1e-15)
    else:
        torch.testing.assert_close(at_data.mean, x, rtol=0, atol=1e-14)
    assert at_data.var.abs().max() < 1e-15
    one = torch.ones((), dtype=F64)
    if schedule.alpha(one) == 0:  # nothing is known of x0
        at_noise, data = denoiser(schedule.sigma(one) * x, one), denoiser.sample(200000, normal(2))
        error = data.std(0) / math.sqrt(len(data))
        assert ((at_noise.mean - data.mean(0)).abs() < 5 * error).all()
        torch.testing.assert_close(at_noise.var.expand_as(x), data.var(0).expand_as(x), rtol=0.03, atol=0)
        assert (at_noise.mean - at_noise.mean[0]).abs().max() < 1e-12


@pytest.mark.parametrize("make", [plane, full, points, oracle_a])
def test_a_time_for_each_sample(make) -> None:
    denoiser = make(VPLinear())
    x, t = normal(1)(denoiser.sample(3, normal(0))), torch.tensor([0.0, 0.3, 1.0], dtype=F64)
    whole = denoiser(x, t)
    for i in range(3):
        one = denoiser(x[i : i + 1], t[i])
        torch.testing.assert_close(whole.mean[i : i + 1], one.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(whole.var.expand_as(x)[i : i + 1], one.var.expand_as(x[:1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [plane, full, points, oracle_a])
def test_float32_in_float32_out(make) -> None:
    denoiser, t = make(Flow()), torch.tensor(0.4, dtype=F64)
    x = normal(1)(denoiser.sample(6, normal(0)))
    found = denoiser(x.float(), t)
    assert found.mean.dtype == found.var.dtype == torch.float32
    torch.testing.assert_close(found.mean.double(), denoiser(x, t).mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_posterior_is_bayes_rule_by_quadrature(t: float) -> None:
    denoiser, time, x_t = oracle_a(Cosine()), torch.tensor(t, dtype=F64), 0.35
    alpha, sigma = Cosine().alpha(time).item(), Cosine().sigma(time).item()
    grid = np.linspace(-4, 4, 40001)
    prior = 0.3 * stats.norm.pdf(grid, -1, 0.25) + 0.7 * stats.norm.pdf(grid, 0.6, 0.4)
    p = prior * stats.norm.pdf(x_t, alpha * grid, sigma)
    found, x = denoiser(torch.tensor([[x_t]], dtype=F64), time), torch.tensor([[x_t]], dtype=F64)
    mean = (p * grid).sum() / p.sum()
    assert abs(found.mean.item() - mean) < 1e-9
    assert abs(found.var.item() - (p * (grid - mean) ** 2).sum() / p.sum()) < 1e-9
    assert abs(denoiser.log_prob(x, time).item() - math.log(p.sum() * (grid[1] - grid[0]))) < 1e-9
    total = 0.3 * stats.norm.cdf(x_t, -alpha, math.hypot(0.25 * alpha, sigma))
    total += 0.7 * stats.norm.cdf(x_t, 0.6 * alpha, math.hypot(0.4 * alpha, sigma))
    assert abs(denoiser.cdf(x, time).item() - total) < 1e-12


def test_full_covariance_is_the_normal_equation() -> None:
    denoiser, t = full(VPLinear()), torch.tensor(0.45, dtype=F64)
    alpha, sigma = VPLinear().alpha(t).item(), VPLinear().sigma(t).item()
    C, m = np.array([[1.0, 0.7], [0.7, 0.9]]), np.array([0.3, -0.4])
    x = np.array([[0.2, 1.1], [-0.5, 0.4]])
    gain = alpha * C @ np.linalg.inv(alpha**2 * C + sigma**2 * np.eye(2))
    found = denoiser(torch.from_numpy(x)[:, None], t)
    np.testing.assert_allclose(found.mean[:, 0], m + (x - alpha * m) @ gain.T, rtol=1e-10)
    var = np.diag(C - gain @ (alpha * C))
    np.testing.assert_allclose(found.var[:, 0], np.broadcast_to(var, (2, 2)), rtol=1e-10)
    law = stats.multivariate_normal(alpha * m, alpha**2 * C + sigma**2 * np.eye(2))
    np.testing.assert_allclose(denoiser.log_prob(torch.from_numpy(x)[:, None], t), law.logpdf(x), rtol=1e-10)


def test_one_component_is_one_gaussian() -> None:
    process, t = GaussianDiffusion(Flow()), torch.tensor(0.3, dtype=F64)
    mean, std = torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([0.2, 0.7], dtype=F64)
    one, many = GaussianDenoiser(process, mean, std), MixtureDenoiser(process, torch.ones(1), mean[None], std[None])
    x = normal(0)(torch.empty(5, 2, dtype=F64))
    torch.testing.assert_close(one(x, t).mean, many(x, t).mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one(x, t).var.expand(5, 2), many(x, t).var, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.log_prob(x, t), many.log_prob(x, t), rtol=1e-12, atol=1e-12)


def test_points_are_a_mixture_of_narrow_gaussians() -> None:
    empirical, t = points(VE()), log_uniform(VE(), 1, 0.7, 0.1)[0]
    narrow = MixtureDenoiser(empirical.process, torch.ones(7), empirical.points, torch.full((7,), 1e-6))
    x = normal(3)(torch.empty(6, 1, 2, dtype=F64))
    torch.testing.assert_close(empirical(x, t).mean, narrow(x, t).mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(empirical(x, t).var, narrow(x, t).var, rtol=0, atol=1e-8)
    torch.testing.assert_close(empirical.log_prob(x, t), narrow.log_prob(x, t), rtol=0, atol=1e-8)


@pytest.mark.parametrize("make", [plane, full, points])
def test_samples_have_the_density(make) -> None:
    """Moments by Monte Carlo; those of the law from the posterior at pure noise."""
    denoiser = make(Flow())
    x = denoiser.sample(20000, normal(8))
    at_noise = denoiser(torch.zeros_like(x[:1]), torch.ones((), dtype=F64))
    assert ((x.mean(0) - at_noise.mean[0]).abs() < 4 * x.std(0) / math.sqrt(20000)).all()
    torch.testing.assert_close(x.var(0), at_noise.var.expand_as(x[:1])[0], rtol=0.05, atol=0)
    if make is full:
        assert abs(torch.corrcoef(x.flatten(1).T)[0, 1].item() - 0.7 / math.sqrt(0.9)) < 0.02


def test_samples_on_the_line_pass_their_distribution_function() -> None:
    denoiser = oracle_a(Flow())
    u = denoiser.cdf(denoiser.sample(5000, normal(9)))
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3


def test_a_label_chooses_its_component() -> None:
    denoiser, t = plane(VPLinear()), torch.tensor(0.5, dtype=F64)
    x = normal(1)(torch.empty(4, 1, 2, dtype=F64))
    found = denoiser(x, t, {"label": torch.tensor([0, 1, 2, 3])})
    for k in range(3):
        alone = GaussianDenoiser(denoiser.process, denoiser.means[k], denoiser.variances[k].sqrt())(x, t)
        torch.testing.assert_close(found.mean[k], alone.mean[k], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.mean[3], denoiser(x, t).mean[3], rtol=0, atol=0)
    total = torch.stack([denoiser.log_prob(x, t, {"label": torch.full((4,), k)}) for k in range(3)])
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=F64).log()[:, None]
    torch.testing.assert_close((total + weights).logsumexp(0), denoiser.log_prob(x, t), rtol=1e-12, atol=1e-12)


def test_chunks_do_not_matter_and_high_dimensions_keep_their_digits() -> None:
    data = normal(0)(torch.empty(300, 3, 16, 16, dtype=F64)).float()
    process, t = GaussianDiffusion(VE()), torch.tensor(0.05, dtype=F64)
    x = data[:50] + VE().sigma(t).float() * normal(1)(torch.empty(50, 3, 16, 16))
    whole, parts = EmpiricalDenoiser(process, data, chunk=1000)(x, t), EmpiricalDenoiser(process, data, chunk=7)(x, t)
    torch.testing.assert_close(whole.mean, parts.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        whole.mean, data[:50], rtol=0, atol=1e-5
    )  # each is near its own point and far from others


def test_fitted_gaussians_have_the_moments_of_the_data() -> None:
    data = plane(Flow()).sample(500, normal(0))
    process, one = GaussianDiffusion(Flow()), torch.ones((), dtype=F64)
    for denoiser in (gaussians.diagonal(process, data), gaussians.full(process, data)):
        posterior = denoiser(torch.zeros(1, 1, 2, dtype=F64), one)
        torch.testing.assert_close(posterior.mean[0], data.mean(0), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(posterior.var.expand(1, 1, 2)[0], data.var(0, correction=0), rtol=1e-6, atol=1e-9)


def test_flow_map_is_the_probability_flow() -> None:
    """Against RK4 in 1500 steps of dy / dl = y - x0_hat, an integrator of its own."""
    schedule = VPLinear()
    denoiser, x, times = oracle_a(schedule), starts(schedule, 20), log_uniform(schedule, 1)
    found = flow_map(denoiser, x, times[0], times[1]) / schedule.alpha(times[1])
    l, h = math.log(20.0), math.log(0.02 / 20.0) / 1500
    y = x / schedule.alpha(times[0])

    def f(y: Tensor, l: float) -> Tensor:
        t = schedule.inverse(torch.tensor(-2 * l, dtype=F64))
        return y - denoiser(schedule.alpha(t) * y, t).mean

    for _ in range(1500):
        k1 = f(y, l)
        k2 = f(y + h / 2 * k1, l + h / 2)
        k3 = f(y + h / 2 * k2, l + h / 2)
        k4 = f(y + h * k3, l + h)
        y, l = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), l + h
    torch.testing.assert_close(found, y, rtol=0, atol=5e-11)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: GaussianDenoiser(p, torch.zeros(2)),
        lambda p: GaussianDenoiser(p, torch.zeros(2), torch.zeros(2)),
        lambda p: GaussianDenoiser(p, torch.zeros(2), covariance=torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
        lambda p: MixtureDenoiser(p, torch.ones(2), torch.zeros(3, 1), torch.ones(3)),
        lambda p: MixtureDenoiser(p, torch.tensor([1.0, -1.0]), torch.zeros(2, 1), torch.ones(2)),
    ],
)
def test_laws_that_cannot_be(make) -> None:
    with pytest.raises(ValueError, match=r"std|mixture"):
        make(GaussianDiffusion(VE()))

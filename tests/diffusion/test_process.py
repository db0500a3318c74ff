"""The Gaussian process against its chain, Bayes' rule, DDPM's formulas and finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from langevin import rng
from langevin.diffusion import Gaussian, GaussianDiffusion, Schedule
from langevin.diffusion.parametrization import Eps, LearnedVariance
from langevin.diffusion.posterior import LearnedRange
from langevin.diffusion.schedules import Flow, Tabulated, VPLinear
from langevin.exact import identities
from langevin.exact.oracles import schedules

F64 = torch.float64
EVERY = schedules()
every_schedule = pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY)


def tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def generated(seed: int) -> rng.Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


@every_schedule
def test_chain_composes_to_the_closed_form(schedule: Schedule) -> None:
    assert identities.chain(schedule) < 1e-12


@every_schedule
def test_sampled_chain_has_the_law_of_the_closed_form(schedule: Schedule) -> None:
    process, num, steps = GaussianDiffusion(schedule), 4000, 25
    x0 = torch.full((num, 1), 1.5, dtype=F64)
    times, x = torch.linspace(0, 1, steps + 1, dtype=F64), x0
    noise = generated(0)
    for i in range(steps):
        x = process.corrupt(x, times[i + 1], noise, s=times[i])
    alpha, sigma = schedule.alpha(tensor(1.0)).item(), schedule.sigma(tensor(1.0)).item()
    assert abs(x.mean().item() - 1.5 * alpha) < 4 * sigma / math.sqrt(num)
    assert abs(x.var().item() / sigma**2 - 1) < 4 * math.sqrt(2 / num)
    z = ((x - 1.5 * alpha) / sigma).flatten().numpy()
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert stats.normaltest(z).pvalue > 1e-3
    direct = process.corrupt(x0, tensor(1.0), noise).flatten().numpy()
    assert stats.ks_2samp(x.flatten().numpy(), direct).pvalue > 1e-3


@every_schedule
def test_corrupt_takes_a_time_for_each_sample(schedule: Schedule) -> None:
    process = GaussianDiffusion(schedule)
    x, t, s = (
        torch.randn(3, 2, 4, dtype=F64),
        torch.tensor([0.2, 0.6, 1.0], dtype=F64),
        torch.tensor([0.1, 0.6, 0.3], dtype=F64),
    )
    s[1] = 0.0
    for at, before in ((t, None), (t, s)):
        whole = process.corrupt(x, at, rng.keyed(range(3))(0), s=before)
        for i in range(3):
            one = process.corrupt(x[i : i + 1], at[i], rng.keyed([i])(0), s=None if before is None else before[i])
            torch.testing.assert_close(whole[i : i + 1], one, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(process.corrupt(x, t, torch.zeros_like)[1], schedule.alpha(t[1]) * x[1])


@every_schedule
@pytest.mark.parametrize(("t", "s"), [(0.9, 0.5), (0.3, 0.02), (1.0, 0.7)])
def test_reverse_is_bayes_rule_by_quadrature(schedule: Schedule, t: float, s: float) -> None:
    process, x0, x_t = GaussianDiffusion(schedule), 0.8, -0.4
    alpha_t, sigma_t, alpha_s, sigma_s = (f(tensor(u)).item() for u in (t, s) for f in (schedule.alpha, schedule.sigma))
    x_t *= max(sigma_t, 1)
    # q(x_s | x0) q(x_t | x_s) on a fine grid; the step's gain and variance from the two marginals alone
    gain = alpha_t / alpha_s
    var = sigma_t**2 - gain**2 * sigma_s**2
    found = process.reverse(
        Gaussian(torch.full((1, 1), x0, dtype=F64)), torch.full((1, 1), x_t, dtype=F64), tensor(t), tensor(s)
    )
    assert found.var is not None
    mean, std = found.mean.item(), found.var.sqrt().item()
    grid = np.linspace(mean - 12 * std, mean + 12 * std, 20001)
    log_p = stats.norm.logpdf(grid, alpha_s * x0, sigma_s) + stats.norm.logpdf(x_t, gain * grid, math.sqrt(var))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    assert abs((p * grid).sum() - mean) < 1e-8 * max(1, abs(mean))
    assert abs((p * (grid - mean) ** 2).sum() / std**2 - 1) < 1e-7


@pytest.mark.parametrize("i", [1, 10, 500, 999])
def test_reverse_is_ddpms_posterior(i: int) -> None:
    """Ho et al. 2020, eq. 6-7, in betas."""
    betas = np.linspace(1e-4, 0.02, 1000)
    alphas, bar = 1 - betas, np.cumprod(1 - betas)
    x0, x_t = np.array([[0.3, -0.9]]), np.array([[1.1, 0.2]])
    mean = (
        np.sqrt(bar[i - 1]) * betas[i] / (1 - bar[i]) * x0 + np.sqrt(alphas[i]) * (1 - bar[i - 1]) / (1 - bar[i]) * x_t
    )
    var = (1 - bar[i - 1]) / (1 - bar[i]) * betas[i]
    process, t, s = GaussianDiffusion(Tabulated.linear()), tensor((i + 1) / 1000), tensor(i / 1000)
    found = process.reverse(Gaussian(torch.from_numpy(x0)), torch.from_numpy(x_t), t, s)
    np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-9)
    np.testing.assert_allclose(found.var, var, rtol=1e-9)
    gain, step_var = process.step_coefficients(t, s)
    np.testing.assert_allclose([gain, step_var], [math.sqrt(alphas[i]), betas[i]], rtol=1e-9)


@pytest.mark.parametrize("i", [1, 10, 500, 999])
def test_learned_variance_is_improved_ddpms(i: int) -> None:
    """Nichol & Dhariwal 2021, eq. 15: exp(v log beta + (1 - v) log beta_tilde)."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    bar = np.cumprod(1 - betas)
    tilde = (1 - bar[i - 1]) / (1 - bar[i]) * betas[i]
    v = np.array([0.0, 0.25, 0.5, 1.0])
    process, t, s = GaussianDiffusion(Tabulated.scaled_linear()), tensor((i + 1) / 1000), tensor(i / 1000)
    alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
    out = torch.cat(
        [torch.zeros(1, 4, dtype=F64), torch.from_numpy(2 * v - 1)[None]], 1
    )  # the paper's code: v = (o + 1) / 2
    posterior = LearnedVariance(Eps()).posterior(out, torch.ones(1, 4, dtype=F64), alpha, sigma)
    step = process.reverse(posterior, torch.ones(1, 4, dtype=F64), t, s)
    np.testing.assert_allclose(step.var[0], np.exp(v * np.log(betas[i]) + (1 - v) * np.log(tilde)), rtol=1e-8)
    np.testing.assert_allclose(posterior.mean[0], 1 / math.sqrt(bar[i]), rtol=1e-9)


def test_reverse_of_an_uncertain_x0_is_the_average_over_it() -> None:
    process, t, s = GaussianDiffusion(VPLinear()), tensor(0.6), tensor(0.35)
    mean, var, x_t = (
        torch.full((1, 1), 0.4, dtype=F64),
        torch.full((1, 1), 0.3, dtype=F64),
        torch.full((1, 1), -0.7, dtype=F64),
    )
    found = process.reverse(Gaussian(mean, var), x_t, t, s)
    z, w = np.polynomial.hermite_e.hermegauss(40)
    w /= w.sum()
    each = [process.reverse(Gaussian(mean + math.sqrt(0.3) * float(node)), x_t, t, s) for node in z]
    means = np.array([e.mean.item() for e in each])
    assert abs((w * means).sum() - found.mean.item()) < 1e-12
    total = each[0].var.item() + (w * (means - found.mean.item()) ** 2).sum()
    assert abs(total - found.var.item()) < 1e-12


@every_schedule
def test_nll_rate_is_half_the_fall_of_snr(schedule: Schedule) -> None:
    process, x0 = GaussianDiffusion(schedule), torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=F64)
    q = Gaussian(x0 + torch.tensor([[0.3, 0.4], [1.0, 0.0]], dtype=F64))  # squared errors .25 and 1
    t, h = torch.tensor([0.313, 0.7093], dtype=F64), 1e-6

    def snr(u: Tensor) -> Tensor:
        return schedule.alpha(u) ** 2 / schedule.sigma(u) ** 2

    fall = -(snr(t + h) - snr(t - h)) / (2 * h)
    found = process.nll_rate(q, x0, x0, t)
    torch.testing.assert_close(found, 0.5 * fall * torch.tensor([0.25, 1.0], dtype=F64), rtol=1e-6, atol=0)


def test_prior_has_the_last_variance() -> None:
    for schedule in EVERY.values():
        x = GaussianDiffusion(schedule).prior((2000, 2), generated(1), dtype=F64)
        z = x / schedule.sigma(tensor(1.0))
        assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


def test_gaussian_posterior_is_the_normal_law() -> None:
    mean, var = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=F64), torch.tensor([[0.2, 3.0], [1.0, 0.1]], dtype=F64)
    x = torch.tensor([[0.1, 0.2], [1.0, 0.3]], dtype=F64)
    expected = stats.norm.logpdf(x, mean, var.sqrt()).sum(1)
    np.testing.assert_allclose(Gaussian(mean, var).log_prob(x), expected, rtol=1e-12)
    wide = Gaussian(torch.zeros(5000, 2, dtype=F64), torch.tensor([0.25, 4.0], dtype=F64))
    z = wide.sample(rng.keyed(range(5000))(0)).numpy() / [0.5, 2.0]
    assert stats.kstest(z[:, 0], "norm").pvalue > 1e-3 and stats.kstest(z[:, 1], "norm").pvalue > 1e-3
    assert torch.equal(Gaussian(mean).sample(torch.randn_like), mean)
    with pytest.raises(ValueError, match="no density"):
        Gaussian(mean).log_prob(x)


def test_a_learned_range_ends_at_known_x0_and_at_unit_variance() -> None:
    process, t, s = GaussianDiffusion(Flow()), tensor(0.7), tensor(0.4)
    mean, x_t = torch.zeros(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64)
    var = torch.tensor(0.49 / (0.09 + 0.49), dtype=F64)
    learned = process.reverse(LearnedRange(mean, var, torch.tensor([[0.0, 1.0]], dtype=F64)), x_t, t, s)
    small, large = process.reverse(Gaussian(mean), x_t, t, s), process.reverse(Gaussian(mean, var), x_t, t, s)
    torch.testing.assert_close(learned.var[0], torch.stack([small.var, large.var]).flatten(), rtol=1e-12, atol=0)
    at_end = process.reverse(LearnedRange(mean, var, torch.tensor([[0.3, 1.0]], dtype=F64)), x_t, t, tensor(0.0))
    assert bool((at_end.var == 0).all())

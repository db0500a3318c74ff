"""Weights against the same loss written in eps and v; losses against their definitions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from langevin import rng
from langevin.diffusion import Gaussian, GaussianDiffusion, NetworkDenoiser, weights
from langevin.diffusion.loss import LearnedUncertainty, denoising_loss, hybrid_loss, step_kl
from langevin.diffusion.parametrization import X0, Eps, LearnedVariance
from langevin.diffusion.schedules import VE, Cosine, Flow, Tabulated, VPLinear
from langevin.exact import GaussianDenoiser
from langevin.registry import names

F64 = torch.float64
T = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.97], dtype=F64)


def generated(seed: int) -> rng.Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


def table(name: str, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """The papers' weights on the error of eps (or of v), carried over to the error of x0 by hand."""
    eps_to_x0, v_to_x0, snr = (alpha / sigma) ** 2, (alpha**2 / sigma + sigma) ** 2, (alpha / sigma) ** 2
    return {
        "uniform": np.ones_like(alpha),
        "snr": eps_to_x0,
        "v": v_to_x0,
        "flow": ((alpha + sigma) / sigma) ** 2,
        "karras": 1 / (sigma * 0.5 / np.sqrt(alpha**2 * 0.25 + sigma**2)) ** 2,
        "min_snr": eps_to_x0 * np.minimum(snr, 5.0) / snr,  # Hang et al. 2023, on eps
        "p2": eps_to_x0 / (1 + snr) ** 1.0,  # Choi et al. 2022, on eps
        "sigmoid": eps_to_x0 / (1 + np.exp(np.log(snr) - 2.0)),  # Hoogeboom et al. 2024, on eps
    }[name]


@pytest.mark.parametrize("name", sorted(set(names("langevin.diffusion.weights", weights.Weight)) - {"vlb"}))
@pytest.mark.parametrize("schedule", [VPLinear(), Cosine(), Tabulated.linear()])
def test_weight_in_the_papers_form(name: str, schedule) -> None:
    weight = names("langevin.diffusion.weights", weights.Weight)[name]()
    expected = table(name, schedule.alpha(T).numpy(), schedule.sigma(T).numpy())
    np.testing.assert_allclose(weight(schedule, T).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("schedule", [VPLinear(), Cosine(), Flow(), VE()])
def test_vlb_weight_is_half_the_fall_of_snr(schedule) -> None:
    h = 1e-6

    def snr(t: Tensor) -> Tensor:
        return schedule.log_snr(t).exp()

    expected = -(snr(T + h) - snr(T - h)) / (4 * h)
    torch.testing.assert_close(weights.VLB()(schedule, T), expected, rtol=1e-6, atol=0)


def test_sigmoid_tends_to_e_to_the_bias() -> None:
    t = torch.tensor([1e-6], dtype=F64)
    assert abs(weights.Sigmoid(-1.5)(Flow(), t).item() / math.exp(-1.5) - 1) < 1e-9


class Says(torch.nn.Module):
    """A network that says the same number everywhere, or two of them in its channels."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(values, dtype=F64))

    def forward(self, x: Tensor, c_noise: Tensor, cond: object) -> Tensor:
        shape = (len(x), x.shape[1] * len(self.values), *x.shape[2:])
        return self.values.repeat_interleave(x.shape[1])[None, :, None, None].expand(shape)


def test_denoising_loss_is_the_weighted_mean_square() -> None:
    denoiser = NetworkDenoiser(Says(0.25), GaussianDiffusion(Flow()), X0())
    x0 = torch.arange(24, dtype=F64).reshape(2, 3, 2, 2) / 10
    t = torch.tensor([0.25, 0.5], dtype=F64)
    found = denoising_loss(denoiser, x0, t, rng.keyed([0, 1])(0), weights.SNR())
    expected = torch.tensor([9.0, 1.0], dtype=F64) * (x0 - 0.25).square().flatten(1).mean(1)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=0)


def test_denoising_loss_of_eps_is_ddpms_simple_loss() -> None:
    denoiser = NetworkDenoiser(Says(0.1), GaussianDiffusion(VPLinear()), Eps())
    x0, noise = torch.randn(2, 3, 2, 2, dtype=F64), rng.keyed([0, 1])(0)
    found = denoising_loss(denoiser, x0, T[[0, 3]], noise, weights.SNR())
    eps = rng.keyed([0, 1])(0)(x0)
    torch.testing.assert_close(found.detach(), (eps - 0.1).square().flatten(1).mean(1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 5.0, 40.0])
def test_least_loss_on_gaussian_data(sigma: float) -> None:
    """D s^2 sigma^2 / (s^2 + sigma^2): the linear denoiser reaches it, and no other slope does."""
    D, s, num = 6, 0.7, 20000
    process = GaussianDiffusion(VE())
    exact = GaussianDenoiser(process, torch.zeros(D, dtype=F64), torch.full((D,), s, dtype=F64))
    t = process.schedule.inverse(torch.full((num,), -2 * math.log(sigma), dtype=F64))
    x0 = exact.sample(num, generated(0))
    losses = D * denoising_loss(exact, x0, t, generated(1), weights.Uniform())
    least = D * s**2 * sigma**2 / (s**2 + sigma**2)
    assert abs(losses.mean().item() - least) < 4 * losses.std().item() / math.sqrt(num)
    var = exact(x0[:1], t[:1]).var
    assert abs(D * var[0, 0].item() / least - 1) < 1e-9  # the posterior's own variance says the same
    x_t = process.corrupt(x0, t, generated(1))
    slope = torch.linalg.lstsq(x_t.reshape(-1, 1), x0.reshape(-1, 1)).solution.item()
    assert abs(slope - s**2 / (s**2 + sigma**2)) < 4 * math.sqrt(least / D / (num * D * (s**2 + sigma**2)))


def test_step_kl_is_that_of_two_normals() -> None:
    process, x0 = GaussianDiffusion(VPLinear()), torch.tensor([[0.3, -0.8]], dtype=F64)
    x_t, t, s = torch.tensor([[0.5, 0.1]], dtype=F64), torch.tensor([0.6], dtype=F64), torch.tensor([0.5], dtype=F64)
    q = Gaussian(torch.tensor([[0.1, 0.0]], dtype=F64), torch.tensor([[0.2, 0.7]], dtype=F64))
    true, model = process.reverse(Gaussian(x0), x_t, t, s), process.reverse(q, x_t, t, s)
    a = torch.distributions.Normal(true.mean, true.var.expand(1, 2).sqrt())
    b = torch.distributions.Normal(model.mean, model.var.sqrt())
    expected = torch.distributions.kl_divergence(a, b).sum(1)
    torch.testing.assert_close(step_kl(process, q, x0, x_t, t, s), expected, rtol=1e-10, atol=0)
    assert step_kl(process, Gaussian(x0), x0, x_t, t, s).abs().item() < 1e-15


def test_small_steps_of_kl_add_up_to_the_continuous_rate() -> None:
    """Where both have the variance of known x0, KL / (t - s) tends to the rate of the continuous bound."""
    process, x0 = GaussianDiffusion(VPLinear()), torch.tensor([[0.3, -0.8]], dtype=F64)
    q, x_t, t = (
        Gaussian(torch.tensor([[0.1, 0.2]], dtype=F64)),
        torch.zeros(1, 2, dtype=F64),
        torch.tensor([0.6], dtype=F64),
    )
    rate = process.nll_rate(q, x0, x_t, t).item()
    for h in (1e-3, 1e-4):
        assert abs(step_kl(process, q, x0, x_t, t, t - h).item() / h / rate - 1) < 10 * h


def test_hybrid_loss_trains_the_variance_by_the_bound_alone() -> None:
    network = Says(0.2, 0.4)
    denoiser = NetworkDenoiser(network, GaussianDiffusion(Tabulated.linear()), LearnedVariance(Eps()))
    x0, t = torch.randn(3, 2, 2, 2, dtype=F64), torch.tensor([0.001, 0.4, 0.9], dtype=F64)

    def loss(scale: float) -> Tensor:
        return hybrid_loss(denoiser, x0, t, rng.keyed(range(3))(0), weights.SNR(), scale=scale)

    simple = loss(0.0)
    eps = rng.keyed(range(3))(0)(x0)
    torch.testing.assert_close(simple.detach(), (eps - 0.2).square().flatten(1).mean(1), rtol=1e-9, atol=0)
    (plain,) = torch.autograd.grad(simple.sum(), network.values)
    (both,) = torch.autograd.grad(loss(1.0).sum(), network.values)
    assert plain[1] == 0 and both[1] != 0  # only the bound sees the variance
    assert abs(both[0] - plain[0]) < 1e-9 * abs(plain[0])  # and it sees nothing else
    q = denoiser(denoiser.process.corrupt(x0, t, rng.keyed(range(3))(0)), t)
    x_t = denoiser.process.corrupt(x0, t, rng.keyed(range(3))(0))
    s = torch.tensor([0.0005, 0.399, 0.899], dtype=F64)
    bound = 1000 / 8 * step_kl(denoiser.process, q, x0, x_t, t, s)
    torch.testing.assert_close(loss(1.0), simple + bound, rtol=1e-9, atol=1e-12)


def test_learned_uncertainty_finds_the_logarithm_of_the_loss() -> None:
    """The least of E[loss] e^-u + u is u = log E[loss]."""
    model = LearnedUncertainty(32).double()
    c_noise = torch.tensor([-0.5, 0.1, 0.7], dtype=F64)
    loss = torch.tensor([0.01, 1.0, 30.0], dtype=F64)
    torch.testing.assert_close(model(loss, c_noise), loss, rtol=0, atol=0)  # u = 0 at the start
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = model(loss, c_noise).sum()
        total.backward()
        return total

    optimizer.step(closure)
    torch.testing.assert_close(model(loss, c_noise).detach(), 1 + loss.log(), rtol=0, atol=1e-3)

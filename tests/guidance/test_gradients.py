"""Guidance by gradients: where the guiding density is known exactly, the guided denoiser is the exact conditional one."""

import pytest
import torch

from langevin.diffusion import GaussianDiffusion, NetworkDenoiser
from langevin.diffusion.parametrization import Karras
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.exact import GaussianDenoiser, oracles
from langevin.guidance import ClassifierGuidance, Energy, NoisyClassifier
from langevin.guidance.covariance import covariance
from langevin.networks.mlp import MLP

F64 = torch.float64
SCHEDULES = {"ve": VE(), "vp": VPLinear(), "flow": Flow()}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
LEVELS = (10.0, 1.0, 0.3, 0.05)


def at(schedule, ratio):
    return schedule.inverse(-2 * torch.tensor(ratio, dtype=F64).log())


def spread(schedule, t):
    return schedule.alpha(t) * torch.linspace(-2, 2, 21, dtype=F64)[:, None]


@every_schedule
def test_the_exact_classifier_makes_the_exact_conditional_denoiser(schedule):
    mixture = oracles.oracle_a(schedule)

    def classify(x_t, t):
        given = [mixture.log_prob(x_t, t, {"label": torch.full((len(x_t),), k)}) for k in (0, 1)]
        return torch.stack(given, 1) + torch.tensor([0.3, 0.7], dtype=F64).log()

    guided = ClassifierGuidance(mixture, classify)
    for ratio in LEVELS:
        t = at(schedule, ratio)
        x, label = spread(schedule, t), {"label": torch.arange(21) % 3}  # 2: no class
        torch.testing.assert_close(guided(x, t, label).mean, mixture(x, t, label).mean, rtol=0, atol=1e-11)
        plain, conditional = mixture(x, t).mean, mixture(x, t, label).mean
        thrice = ClassifierGuidance(mixture, classify, 3.0)(x, t, label).mean
        torch.testing.assert_close(thrice, plain + 3 * (conditional - plain), rtol=0, atol=1e-10)
        assert torch.equal(ClassifierGuidance(mixture, classify, 0.0)(x, t, label).mean, plain)


def test_the_denoiser_is_not_told_what_the_classifier_answers_for():
    told = []

    class Listening(GaussianDenoiser):
        def forward(self, x_t, t, cond=None):
            told.append(cond)
            return super().forward(x_t, t, cond)

    inner = Listening(GaussianDiffusion(VE()), torch.zeros(2, dtype=F64), torch.ones((), dtype=F64))
    guided = ClassifierGuidance(inner, lambda x, t: x, key="kind")
    cond = {"kind": torch.zeros(3, dtype=torch.long), "text": torch.ones(3)}
    guided(torch.zeros(3, 2, dtype=F64), torch.tensor(0.5, dtype=F64), cond)
    assert [set(c) for c in told] == [{"text"}]


@every_schedule
def test_energies_of_gaussian_data_in_closed_form(schedule):
    """x0 ~ N(m, s^2), E = k/2 (x0 - a)^2: at the mean a shift by the posterior variance; of x_t the exact tilted law."""
    m, s, k, a = 0.3, 0.5, 2.0, -0.7
    inner = GaussianDenoiser(GaussianDiffusion(schedule), torch.tensor([m], dtype=F64), torch.tensor(s, dtype=F64))
    prec = 1 / s**2 + k
    tilted = GaussianDenoiser(
        GaussianDiffusion(schedule),
        torch.tensor([(m / s**2 + k * a) / prec], dtype=F64),
        torch.tensor(prec**-0.5, dtype=F64),
    )

    def clean(x, t, cond):
        return 0.5 * k * (x - a).square().sum(1)

    def noisy(x_t, t, cond):  # -log E[exp(-E(x0)) | x_t], up to a constant
        q = inner(x_t, t)
        return 0.5 * ((q.mean - a).square() / (q.var + 1 / k)).sum(1)

    for ratio in LEVELS:
        t = at(schedule, ratio)
        x, q = spread(schedule, t), inner(spread(schedule, t), t)
        found = Energy(inner, clean, 1.5)(x, t).mean
        torch.testing.assert_close(found, q.mean - 1.5 * q.var * k * (q.mean - a), rtol=0, atol=1e-12)
        found = Energy(inner, noisy, noisy=True)(x, t).mean
        torch.testing.assert_close(found, tilted(x, t).mean, rtol=0, atol=1e-12)
        assert torch.equal(Energy(inner, clean, 0.0)(x, t).mean, q.mean)


@every_schedule
def test_the_gradient_through_the_denoiser_is_the_covariance(schedule):
    c = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.3], [0.0, 0.3, 0.5]], dtype=F64)
    inner = GaussianDenoiser(GaussianDiffusion(schedule), torch.zeros(3, dtype=F64), covariance=c)
    for ratio in LEVELS:
        t = at(schedule, ratio)
        expected = torch.linalg.inv(torch.linalg.inv(c) + torch.eye(3, dtype=F64) / ratio**2)
        _, cov = covariance(inner, torch.randn(3, 3, dtype=F64), t, None)
        torch.testing.assert_close(cov(torch.eye(3, dtype=F64)), expected, rtol=1e-9, atol=1e-12)


def test_a_frozen_network_under_no_grad_is_differentiated_all_the_same():
    torch.manual_seed(0)
    network = MLP(channels=3, width=16, blocks=1, features=16)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    inner = NetworkDenoiser(network, GaussianDiffusion(VE()), Karras()).double().requires_grad_(False)
    x, t = torch.randn(4, 3, dtype=F64), torch.tensor(0.8, dtype=F64)
    sigma = VE().sigma(t)

    def energy(x, t, cond):
        return x.pow(4).sum(1)

    with torch.no_grad():
        found = inner(x, t).mean - Energy(inner, energy)(x, t).mean
    h, numeric = 1e-6, torch.zeros_like(x)  # sigma^2 d E(x0_hat(x)) / dx by differences
    for d in range(3):
        e = h * torch.eye(3, dtype=F64)[d]
        rise = energy(inner(x + e, t).mean, t, None) - energy(inner(x - e, t).mean, t, None)
        numeric[:, d] = sigma**2 * rise / (2 * h)
    torch.testing.assert_close(found, numeric, rtol=1e-6, atol=1e-8)


def test_a_noisy_classifier_reads_what_its_network_says_everywhere():
    class Counting(torch.nn.Module):
        def forward(self, x, c_noise, cond):
            assert cond is None and c_noise.shape == (2,)
            return torch.stack([x[:, 0], 2 * x[:, 0]], 1)

    schedule = VPLinear()
    classifier = NoisyClassifier(Counting(), GaussianDiffusion(schedule), Karras(0.5))
    x, t = torch.randn(2, 1, 4, 4, dtype=F64), torch.tensor(0.3, dtype=F64)
    c_in, _, _ = Karras(0.5).coefficients(schedule.alpha(t), schedule.sigma(t))
    votes = c_in * x.flatten(1).sum(1) / 4  # the root of 16 positions
    torch.testing.assert_close(classifier(x, t), torch.stack([votes, 2 * votes], 1))

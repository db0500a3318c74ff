"""Posterior sampling against Gaussian posteriors; the denoiser is affine there, so that three starts tell the law at the end."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from langevin.diffusion import Denoiser, GaussianDiffusion
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.exact import GaussianDenoiser
from langevin.guidance import DPS, MMPS, Inpainting, Mask, Matrix, PiGDM
from langevin.guidance.operators import Operator
from langevin.guidance.solve import conjugate_gradient
from langevin.recipes import solver_oracles as measure
from langevin.solvers import sample, trajectory
from langevin.solvers.base import level
from langevin.solvers.ddim import DDIM
from langevin.solvers.grids import Karras
from langevin.solvers.heun import Heun

F64 = torch.float64
C = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
FIRST = Matrix(torch.tensor([[1.0, 0.0]], dtype=F64))
Y = torch.tensor([[1.5]], dtype=F64)
STD = 0.1
MEAN = torch.tensor([1.5 / 1.01, 0.8 * 1.5 / 1.01], dtype=F64)
COV = C - torch.outer(C[0], C[0]) / 1.01


def prior(schedule) -> GaussianDenoiser:
    return GaussianDenoiser(GaussianDiffusion(schedule), torch.zeros(2, dtype=F64), covariance=C)


def law(make: Callable[[Denoiser, Tensor], Denoiser], solver, num: int, far: float = 200.0) -> tuple[Tensor, Tensor]:
    """Mean and covariance at sigma = 1e-4 of samples begun as N(0, far^2); noise-free steps of an affine denoiser."""
    schedule = VE(sigma_max=far)
    times = schedule.inverse(-2 * torch.logspace(math.log10(far), -4, num + 1, dtype=F64).log()).clamp(0, 1)
    x = torch.cat([torch.zeros(1, 2, dtype=F64), far * torch.eye(2, dtype=F64)])
    *_, step = trajectory(make(prior(schedule), times), solver, x, times)
    gains = step.x[1:] - step.x[0]
    return step.x[0], gains.T @ gains


def test_the_exact_posterior_is_as_known():
    torch.testing.assert_close(MEAN, torch.tensor([1.4851, 1.1881], dtype=F64), rtol=0, atol=5e-5)
    known = torch.tensor([[0.00990, 0.00792], [0.00792, 0.36634]], dtype=F64)
    torch.testing.assert_close(COV, known, rtol=0, atol=5e-6)


@pytest.mark.parametrize("schedule", [VE(), VPLinear(), Flow()])
def test_moment_matching_is_the_exact_denoiser_of_the_posterior(schedule):
    mmps = MMPS(prior(schedule), FIRST, Y, STD)
    exact = GaussianDenoiser(GaussianDiffusion(schedule), MEAN, covariance=COV)
    for ratio in (20.0, 1.0, 0.1, 0.01):
        t = schedule.inverse(-2 * torch.tensor(ratio, dtype=F64).log()).clamp(max=1)
        x = schedule.alpha(t) * torch.randn(9, 2, dtype=F64, generator=torch.Generator().manual_seed(1)) * (1 + ratio)
        torch.testing.assert_close(mmps(x, t).mean, exact(x, t).mean, rtol=1e-10, atol=1e-10)


def finely(make: Callable[[Denoiser, Tensor], Denoiser]) -> tuple[Tensor, Tensor]:
    """The law as steps get short: what is left of Heun's error of second order, extrapolated."""
    coarse, fine = (law(make, Heun(), n) for n in (400, 800))
    return (4 * fine[0] - coarse[0]) / 3, (4 * fine[1] - coarse[1]) / 3


def test_moment_matching_samples_the_posterior():
    """But for where it starts: N(0, 200^2) in the place of the noisy posterior moves the mean towards 0."""
    mean, cov = finely(lambda d, times: MMPS(d, FIRST, Y, STD))
    torch.testing.assert_close(mean, torch.tensor([1.4843, 1.1844], dtype=F64), rtol=0, atol=5e-5)
    torch.testing.assert_close(cov, COV, rtol=0, atol=5e-6)


def test_the_bias_of_pseudo_inverse_guidance_is_the_known_one():
    mean, cov = finely(lambda d, times: PiGDM(d, FIRST, Y, STD))
    torch.testing.assert_close(mean, torch.tensor([1.4605, 1.1257], dtype=F64), rtol=0, atol=5e-5)
    torch.testing.assert_close(cov.diag(), torch.tensor([0.0147, 0.3967], dtype=F64), rtol=0, atol=5e-5)


def test_dps_takes_the_papers_step():
    schedule = VPLinear()
    times, denoiser, step = Karras()(schedule, 12), prior(schedule), 0.3
    guided = DPS(denoiser, FIRST, Y, times, step=step)
    x = torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    for t, s in pairwise(times):
        at, to = level(schedule, t), level(schedule, s)
        leaf = x.clone().requires_grad_()
        squares = (Y - FIRST(denoiser(leaf, t).mean)).square().sum(1)
        (gradient,) = torch.autograd.grad(squares.sum(), leaf)
        plain, _ = DDIM().step(denoiser, x, at, to, DDIM().init(x), cond=None, noise=torch.zeros_like)
        paper = plain - step / squares.sqrt().detach()[:, None] * gradient
        x, _ = DDIM().step(guided, x, at, to, DDIM().init(x), cond=None, noise=torch.zeros_like)
        torch.testing.assert_close(x, paper, rtol=1e-10, atol=1e-10)


def test_dps_does_not_sample_the_posterior():
    """Its pull has a length that is chosen: the spread along what is measured is not that of the noise, at any length."""
    schedule = VE()
    denoiser, times = prior(schedule), Karras()(schedule, 100)
    wrong = []
    for step in (0.03, 0.3, 1.0):
        guided = DPS(denoiser, FIRST, Y, times, step=step)
        x = sample(guided, DDIM(), (2,), times, seeds=range(400), dtype=F64)
        assert x.isfinite().all()
        wrong.append(abs(x[:, 0].std().item() / COV[0, 0].sqrt().item() - 1))
        exact = sample(MMPS(denoiser, FIRST, Y, STD), DDIM(), (2,), times, seeds=range(400), dtype=F64)
    assert min(wrong) > 0.2
    assert abs(exact[:, 0].std().item() / COV[0, 0].sqrt().item() - 1) < 0.15


OPERATORS: dict[str, tuple[Operator, tuple[int, ...]]] = {
    "mask": (Mask(torch.tensor([[True, False, True], [False, False, True]])), (2, 3)),
    "matrix": (Matrix(torch.randn(4, 6, dtype=F64), (2, 3)), (2, 3)),
    "matrix of a vector": (FIRST, (2,)),
}


@pytest.mark.parametrize(("operator", "shape"), OPERATORS.values(), ids=OPERATORS)
def test_transposes(operator: Operator, shape: tuple[int, ...]):
    x = torch.randn(3, *shape, dtype=F64)
    y = torch.randn_like(operator(x))
    one, other = (operator(x) * y).flatten(1).sum(1), (x * operator.transpose(y)).flatten(1).sum(1)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("operator", "shape"), OPERATORS.values(), ids=OPERATORS)
def test_moment_matching_with_any_operator_is_linear_algebra(operator: Operator, shape: tuple[int, ...]):
    d = math.prod(shape)
    root = torch.randn(d, d, dtype=F64, generator=torch.Generator().manual_seed(2))
    c = root @ root.T / d + 0.1 * torch.eye(d, dtype=F64)
    inner = GaussianDenoiser(GaussianDiffusion(VE()), torch.zeros(shape, dtype=F64), covariance=c)
    A = torch.stack([operator(e.reshape(1, *shape)).flatten() for e in torch.eye(d, dtype=F64)], 1)
    x, t = torch.randn(2, *shape, dtype=F64), torch.tensor(0.7, dtype=F64)
    y = operator(torch.randn(1, *shape, dtype=F64))
    precision = torch.linalg.inv(c) + torch.eye(d, dtype=F64) / VE().sigma(t) ** 2 + A.T @ A / STD**2
    right = x.flatten(1) / VE().sigma(t) ** 2 + (y.flatten(1) @ A) / STD**2
    expected = torch.linalg.solve(precision, right.T).T.reshape(2, *shape)
    found = MMPS(inner, operator, y, STD, iterations=12)(x, t).mean
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


def test_conjugate_gradients_solve_and_stop():
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(3, 5, 5, dtype=F64, generator=rng)
    m = root @ root.mT + torch.eye(5, dtype=F64)
    b = torch.randn(3, 5, dtype=F64, generator=rng)
    b[1] = 0
    found = conjugate_gradient(lambda v: (m @ v[..., None])[..., 0], b, 8)
    torch.testing.assert_close(found, torch.linalg.solve(m, b), rtol=1e-9, atol=1e-10)
    assert torch.equal(found[1], torch.zeros(5, dtype=F64))
    assert torch.equal(conjugate_gradient(lambda v: -v, b, 4), torch.zeros_like(b))  # not positive: left alone


# paradigms asks for several levels in one batch, and measurements belong to rows of the caller's
SOLVERS = {name: solver for name, solver in measure.registered().items() if name != "paradigms"}


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_known_entries_come_back_bit_for_bit(solver, dtype: torch.dtype):
    schedule, seen = VPLinear(), torch.tensor([True, False])
    known = torch.tensor([[0.123456789, 9.9], [-1 / 3, 9.9]], dtype=F64)
    guided = Inpainting(MMPS(prior(schedule), Mask(seen), Mask(seen)(known), 0.0), known, seen)
    x = sample(guided, solver, (2,), Karras()(schedule, 6), seeds=[0, 1], dtype=dtype)
    assert torch.equal(x[:, 0], known[:, 0].to(dtype))
    assert x[:, 1].isfinite().all() and (x[:, 1] != 9.9).all()


def test_the_rest_of_an_inpainting_is_drawn_to_fit():
    """The unseen entry given the seen one is N(.8 y, .36): with moment matching, and not by replacement alone."""
    schedule, seen = VE(), torch.tensor([True, False])
    known = torch.tensor([[1.5, 0.0]], dtype=F64)
    times, num = Karras()(schedule, 60), 600

    def means(denoiser: Denoiser) -> float:
        x = sample(Inpainting(denoiser, known, seen), Heun(), (2,), times, seeds=range(num), dtype=F64)
        assert abs(x[:, 1].std().item() - 0.6) < 0.07
        return x[:, 1].mean().item()

    assert abs(means(MMPS(prior(schedule), Mask(seen), Mask(seen)(known), 0.0)) - 1.2) < 4 * 0.6 / math.sqrt(num) + 0.01

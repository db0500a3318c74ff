"""Solvers that are one and the same; steps against their papers' formulas; steps the other way."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from langevin import rng
from langevin.diffusion.schedules import VE, Flow, Tabulated, VPLinear, zero_terminal
from langevin.exact import oracles
from langevin.recipes.solver_oracles import last
from langevin.solvers import Solver, trajectory
from langevin.solvers.ancestral import Ancestral
from langevin.solvers.base import levels
from langevin.solvers.ddim import DDIM
from langevin.solvers.dpmpp import DPMpp
from langevin.solvers.grids import Karras, Uniform
from langevin.solvers.heun import Heun

F64 = torch.float64
SCHEDULES = [VE(), VPLinear(), Flow(), zero_terminal(Tabulated.linear())]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@every_schedule
def test_ddim_with_eta_one_is_ancestral(schedule) -> None:
    denoiser, x, noise = oracles.oracle_a(schedule), oracles.starts(schedule, 20), rng.keyed(range(20))
    for times in (Karras()(schedule, 12), Uniform()(schedule, 12), oracles.log_uniform(schedule, 12)):
        a = trajectory(denoiser, DDIM(1.0), x, times, noise=noise)
        b = trajectory(denoiser, Ancestral("small"), x, times, noise=noise)
        for one, other in zip(a, b, strict=True):
            close(one.x / x.abs().max(), other.x / x.abs().max())


def test_euler_on_the_rectified_flow_is_ddim() -> None:
    denoiser, x, times = oracles.oracle_a(Flow()), oracles.starts(Flow(), 20), Uniform()(Flow(), 15)
    y = x
    for t, s in pairwise(times):
        velocity = (y - denoiser(y, t).mean) / t  # u = eps - x0 = (x - x0) / t
        y = y + (s - t) * velocity
    close(last(denoiser, DDIM(), x, times), y)


@every_schedule
def test_dpmpp_of_first_order_is_ddim(schedule) -> None:
    denoiser, x, times = oracles.oracle_a(schedule), oracles.starts(schedule, 20), Karras()(schedule, 10)
    solver = DPMpp()
    for t, s in pairwise(levels(schedule, times)):
        a, _ = solver.step(denoiser, x, t, s, solver.init(x), cond=None, noise=torch.zeros_like)
        b, _ = DDIM().step(denoiser, x, t, s, DDIM().init(x), cond=None, noise=torch.zeros_like)
        close(a, b)
        x = b


def test_ddim_is_equation_12() -> None:
    """Song et al. 2021, in their alphas (our alpha^2), for several eta."""
    table = Tabulated.linear()
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    denoiser = oracles.oracle_a(table)
    x, z = torch.tensor([[0.7]], dtype=F64), 0.37
    for i, j in ((700, 500), (50, 49)):
        t, s = levels(table, torch.tensor([(i + 1) / 1000, (j + 1) / 1000], dtype=F64))
        x0 = denoiser(x, t.t).mean.item()
        eps = (0.7 - math.sqrt(bar[i]) * x0) / math.sqrt(1 - bar[i])
        for eta in (0.0, 0.3, 1.0):
            std = eta * math.sqrt((1 - bar[j]) / (1 - bar[i])) * math.sqrt(1 - bar[i] / bar[j])
            expected = math.sqrt(bar[j]) * x0 + math.sqrt(1 - bar[j] - std**2) * eps + std * z
            found, _ = DDIM(eta).step(
                denoiser, x, t, s, DDIM().init(x), cond=None, noise=lambda like: torch.full_like(like, z)
            )
            assert abs(found.item() - expected) < 1e-9


def test_heun_is_algorithm_1() -> None:
    """Karras et al. 2022 without churn, in sigma, for the VE schedule from 80 to 0."""
    denoiser, times = oracles.oracle_a(VE()), Karras()(VE(), 9)
    x = 4 * oracles.starts(VE(), 20)
    sigmas, y = VE().sigma(times), x
    for i in range(9):
        d = (y - denoiser(y, times[i]).mean) / sigmas[i]
        euler = y + (sigmas[i + 1] - sigmas[i]) * d
        if sigmas[i + 1] == 0:
            y = euler
        else:
            d_next = (euler - denoiser(euler, times[i + 1]).mean) / sigmas[i + 1]
            y = y + (sigmas[i + 1] - sigmas[i]) * (d + d_next) / 2
    torch.testing.assert_close(last(denoiser, Heun(), x, times), y, rtol=0, atol=1e-11)


def test_dpmpp_is_algorithm_2() -> None:
    """Lu et al. 2022, in alpha, sigma and lambda, on a variance-preserving schedule."""
    schedule = VPLinear()
    denoiser, x, times = oracles.oracle_a(schedule), oracles.starts(schedule, 20), oracles.log_uniform(schedule, 9)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    lam = torch.log(alpha / sigma)
    h = lam.diff()
    y, before = x, None
    for i in range(9):
        x0 = denoiser(y, times[i]).mean
        if before is None:
            D = x0
        else:
            r = h[i - 1] / h[i]
            D = (1 + 1 / (2 * r)) * x0 - before / (2 * r)
        y, before = sigma[i + 1] / sigma[i] * y - alpha[i + 1] * (torch.exp(-h[i]) - 1) * D, x0
    close(last(denoiser, DPMpp(), x, times), y)


def test_ancestral_variances_are_ddpms_two() -> None:
    """Ho et al. 2020, section 3.2: sigma_t^2 = beta_t (large) or beta_tilde_t (small)."""
    denoiser, x = oracles.oracle_a(Tabulated.linear()), torch.tensor([[0.7]], dtype=F64)
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    for i in (1, 300, 999):
        t, s = levels(Tabulated.linear(), torch.tensor([(i + 1) / 1000, i / 1000], dtype=F64))
        for variance, expected in (("large", betas[i]), ("small", betas[i] * (1 - bar[i - 1]) / (1 - bar[i]))):
            solver = Ancestral(variance)
            mean, up = (
                solver.step(denoiser, x, t, s, solver.init(x), cond=None, noise=noise)[0].item()
                for noise in (torch.zeros_like, torch.ones_like)
            )
            assert abs((up - mean) ** 2 / expected - 1) < 1e-7


@pytest.mark.parametrize(("solver", "at_32", "slope"), [(DDIM(), 8.7e-2, 1.0), (Heun(), 6.0e-4, 3.0)])
def test_inversion_and_back(solver: Solver, at_32: float, slope: float) -> None:
    """From data to noise by steps to later times, then back: the error of the round trip."""
    schedule = VE()
    denoiser = oracles.oracle_a(schedule)
    ends = oracles.log_uniform(schedule, 1)
    data = oracles.flow_map(denoiser, oracles.starts(schedule), ends[0], ends[1])

    def error(num_steps: int) -> float:
        times = oracles.log_uniform(schedule, num_steps)
        noised = last(denoiser, solver, data, times.flip(0))
        return (last(denoiser, solver, noised, times) - data).square().mean().sqrt().item()

    assert abs(error(32) / at_32 - 1) < 0.1
    assert abs(oracles.slope(error, (64, 128, 256)) - slope) < 0.05


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_settings_that_cannot_be(wrong: float) -> None:
    with pytest.raises(ValueError, match="eta"):
        DDIM(wrong)
    with pytest.raises(ValueError, match="variance"):
        Ancestral("middling")  # type: ignore[arg-type]

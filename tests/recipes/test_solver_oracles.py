"""The figures that solvers are held to, found again in NumPy without any of the package's code."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from langevin.diffusion.schedules import Flow
from langevin.recipes import solver_oracles

W, M, S = np.array([0.3, 0.7]), np.array([-1.0, 0.6]), np.array([0.25, 0.4])


def denoise(y: np.ndarray, r: float) -> np.ndarray:
    var = S**2 + r**2
    p = W * norm.pdf(y[:, None], M, np.sqrt(var))
    return (p / p.sum(1, keepdims=True) * (M + S**2 / var * (y[:, None] - M))).sum(1)


def cdf(y: float, r: float) -> float:
    return float((W * norm.cdf(y, M, np.sqrt(S**2 + r**2))).sum())


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray]:
    y = 20 * norm.ppf((np.arange(200) + 0.5) / 200)
    return y, np.array([brentq(lambda x, u=cdf(v, 20.0): cdf(x, 0.02) - u, -9, 9, xtol=1e-14) for v in y])


def ddim(y, r):
    for a, b in pairwise(r):
        y = y + (b - a) * (y - denoise(y, a)) / a
    return y


def heun(y, r):
    for a, b in pairwise(r):
        d = (y - denoise(y, a)) / a
        euler = y + (b - a) * d
        y = y + (b - a) / 2 * (d + (euler - denoise(euler, b)) / b)
    return y


def dpmpp(y, r):
    before = None
    for a, b in pairwise(r):  # equal steps in the logarithm: 1 / (2 rho) = 1/2
        x0 = denoise(y, a)
        blend = x0 if before is None else 1.5 * x0 - 0.5 * before
        y, before = b / a * y + (1 - b / a) * blend, x0
    return y


@pytest.mark.parametrize("solver", [ddim, heun, dpmpp])
def test_errors_in_numpy(solver, problem) -> None:
    y, exact = problem
    for num_steps in (32, 128):
        r = 20 * (0.02 / 20) ** (np.arange(num_steps + 1) / num_steps)
        error = np.abs(solver(y, r) - exact).mean()
        found = solver_oracles.end_error(solver_oracles.registered()[solver.__name__], num_steps, Flow())
        assert abs(found / error - 1) < 1e-6
        if num_steps == 32:
            assert abs(solver_oracles.ERRORS_AT_32[solver.__name__] / error - 1) < 2e-3


@pytest.mark.parametrize(("num_steps", "expected"), solver_oracles.ANCESTRAL_RATIOS.items())
def test_ancestral_variance_by_its_recursion(num_steps: int, expected: float) -> None:
    """x_s = mean + std z with q(x_s | x_t, x0_hat), x0_hat = s^2 / (s^2 + sigma^2) x_t, VE."""
    sigma = 80 * (0.002 / 80) ** (np.arange(num_steps + 1) / num_steps)
    var = 0.25 + 80.0**2
    for a, b in pairwise(sigma):
        keep = b**2 / a**2
        gain = keep + (1 - keep) * 0.25 / (0.25 + a**2)
        var = gain**2 * var + b**2 * (1 - keep)
    ratio = var / (0.25 + 0.002**2)
    assert abs(ratio - expected) < 5.1e-4
    found = solver_oracles.variance_ratio(solver_oracles.registered()["ancestral(variance=small)"], num_steps)
    assert abs(found / ratio - 1) < 1e-9

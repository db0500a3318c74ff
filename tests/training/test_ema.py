"""Power-function averages and their profiles."""

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from langevin.training import ema
from langevin.training.ema import Profile


def test_gamma_of_known_widths():
    assert [ema.gamma_of(s) for s in (0.05, 0.10, 0.15)] == pytest.approx([16.972, 6.937, 3.558], abs=5e-4)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.2, 0.27])
def test_the_width_is_the_standard_deviation_of_the_profile(sigma_rel):
    p = _density(Profile(1.0, sigma_rel))
    mass, mean, square = (quad(lambda x, k=k: x**k * p(x), 0, 1, epsabs=1e-12)[0] for k in range(3))
    assert mass == pytest.approx(1, abs=1e-9)
    assert np.sqrt(square - mean**2) == pytest.approx(sigma_rel, rel=1e-6)


@pytest.mark.parametrize("T", [60, 1000, 5001])
def test_the_average_is_the_power_function_of_time(T):
    """average_T = sum over edges t after s of w_t ((t/T)^(g+1) - (s/T)^(g+1)), the telescoped form of the recursion."""
    rng, sigma_rel = np.random.default_rng(0), 0.1
    weights = torch.from_numpy(rng.standard_normal((T, 5)))
    average = [torch.full((5,), 7.0, dtype=torch.float64)]
    for t in range(1, T + 1):
        ema.update(average, [weights[t - 1]], t, sigma_rel)
    edges = np.array([0, *range(1, 1000), *range(1000, 2000, 2), *range(2000, 4000, 4), *range(4000, 9000, 8)])
    edges = edges[edges <= T]
    assert ema.edge(T) == edges[-1]
    share = (edges / edges[-1]) ** (ema.gamma_of(sigma_rel) + 1)
    want = (weights[edges[1:] - 1] * torch.from_numpy(np.diff(share))[:, None]).sum(0)
    torch.testing.assert_close(average[0], want, rtol=1e-10, atol=1e-12)


def _density(profile: Profile):
    g = ema.gamma_of(profile.sigma_rel)
    return lambda x: (g + 1) * (x / profile.step) ** g / profile.step if 0 <= x <= profile.step else 0.0


def test_inner_products_are_those_of_quadrature():
    profiles = [Profile(t, s) for t in (3.0, 7.0, 10.0) for s in (0.03, 0.1, 0.25)]
    for a, b in itertools.product(profiles, repeat=2):
        integral = quad(lambda x, p=_density(a), q=_density(b): p(x) * q(x), 0, min(a.step, b.step), epsabs=1e-13)[0]
        assert a.inner(b) == pytest.approx(integral, rel=1e-7, abs=1e-12)


def test_a_mixture_is_the_nearest_that_sums_to_one_and_says_how_near():
    stored = [Profile(t, s) for t in (40.0, 60.0, 80.0, 100.0) for s in (0.05, 0.1)]
    wanted = Profile(100.0, 0.15)
    x, error = ema.mixture(wanted, stored)
    assert x.sum() == pytest.approx(1, abs=1e-12)
    densities, p = [_density(a) for a in stored], _density(wanted)

    def distance(x) -> float:
        miss = [
            quad(lambda t: (sum(c * d(t) for c, d in zip(x, densities, strict=True)) - p(t)) ** 2, low, high)[0]
            for low, high in itertools.pairwise((0, 40, 60, 80, 100))
        ]
        return float(np.sqrt(sum(miss) / wanted.inner(wanted)))

    assert error == pytest.approx(distance(x), rel=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(10):
        step = rng.standard_normal(len(x))
        assert distance(x + 0.01 * (step - step.mean())) > error


def test_a_stored_average_is_given_back():
    stored = [Profile(t, s) for t in (50.0, 100.0) for s in (0.05, 0.1)]
    x, error = ema.mixture(stored[2], stored)
    assert x == pytest.approx([0, 0, 1, 0], abs=1e-9)
    assert error < 1e-6

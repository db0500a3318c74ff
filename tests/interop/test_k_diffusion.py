"""Denoisers in k-diffusion's form and back; beside its own sampler where it is installed."""

import pytest
import torch

from langevin.diffusion import Rescheduled
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.exact import oracles
from langevin.interop.k_diffusion import from_callable, to_callable
from langevin.solvers import trajectory
from langevin.solvers.heun import Heun

F64 = torch.float64
X = torch.linspace(-2, 2, 15, dtype=F64)[:, None]
SIGMA = torch.logspace(1.5, -2.5, 15, dtype=F64)


@pytest.mark.parametrize("schedule", [VE(), VPLinear(), Flow()])
def test_out_is_the_mean_at_that_noise(schedule):
    mixture, label = oracles.oracle_a(schedule), torch.arange(15) % 3
    x = X * (1 + SIGMA[:, None])
    expected = oracles.oracle_a(VE())(x, VE().inverse(-2 * SIGMA.log())).mean
    f = to_callable(mixture)
    torch.testing.assert_close(f(x, SIGMA), expected, rtol=1e-9, atol=1e-10)
    with_label = oracles.oracle_a(VE())(x, VE().inverse(-2 * SIGMA.log()), {"label": label}).mean
    torch.testing.assert_close(f(x, SIGMA, label=label), with_label, rtol=1e-9, atol=1e-10)
    assert f(x.float(), SIGMA.float()).dtype == torch.float32


def test_in_and_out_are_inverse():
    mixture, label = oracles.oracle_a(VE()), torch.arange(15) % 3
    t = VE().inverse(-2 * SIGMA.log())
    back = from_callable(to_callable(mixture))
    for cond in (None, {"label": label}):
        torch.testing.assert_close(back(X, t, cond).mean, mixture(X, t, cond).mean, rtol=1e-10, atol=1e-11)
        f = to_callable(mixture)
        again = to_callable(from_callable(f))
        torch.testing.assert_close(again(X, SIGMA, **(cond or {})), f(X, SIGMA, **(cond or {})), rtol=1e-10, atol=1e-11)


def test_a_module_keeps_its_parameters_and_other_schedules_are_a_wrapper_away():
    class Shrink(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.25, dtype=F64))

        def forward(self, x, sigma):
            assert sigma.shape == (len(x),)
            return x * (self.gain / (self.gain + sigma**2))[:, None]

    denoiser = from_callable(Shrink())
    assert [p.item() for p in denoiser.parameters()] == [0.25]
    moved = Rescheduled(denoiser, Flow())  # the denoiser of N(0, .5^2), on a straight line
    t = torch.tensor(0.3, dtype=F64)
    torch.testing.assert_close(moved(X, t).mean, oracles.gaussian_data(Flow())(X, t).mean, rtol=1e-10, atol=1e-12)


def test_its_heun_sampler_is_ours():
    sampling = pytest.importorskip("k_diffusion.sampling", reason="k-diffusion is not installed", exc_type=ImportError)
    mixture = oracles.oracle_a(VE())
    sigmas = torch.cat([oracles.log_uniform(VE(), 19, 80.0, 0.002), torch.zeros(1, dtype=F64)])
    times, sigmas = sigmas, VE().sigma(sigmas)
    x = oracles.starts(VE(), 20) * 4
    theirs = sampling.sample_heun(to_callable(mixture), x, sigmas, disable=True)
    *_, step = trajectory(mixture, Heun(), x, times)
    torch.testing.assert_close(step.x, theirs, rtol=1e-9, atol=1e-9)

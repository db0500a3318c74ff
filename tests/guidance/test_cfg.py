"""Classifier-free guidance against closed forms (Gaussian conditionals)."""

import math

import pytest
import torch

from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion
from langevin.diffusion.schedules import VE
from langevin.guidance import ClassifierFree
from langevin.solvers import trajectory
from langevin.solvers.heun import Heun

F64 = torch.float64


class Pair(Denoiser):
    """Exact for N(mean, std^2) with the condition and N(0, std0^2) without."""

    def __init__(self, mean: float, std: float, std0: float) -> None:
        super().__init__()
        self.process = GaussianDiffusion(VE(sigma_max=2000.0))
        self.settings = mean, std, std0

    def forward(self, x_t, t, cond=None):
        mean, std, std0 = self.settings
        sigma = self.process.schedule.sigma(t)
        m, s = (mean, std) if cond else (0.0, std0)
        return Gaussian(m + (x_t - m) * s**2 / (s**2 + sigma**2))


COND = {"c": torch.ones(1)}


def _terminal(scale: float, pair: Pair) -> tuple[float, float]:
    """(mean, std) at the end: the map from start to end is affine, so two starts tell it."""
    x = torch.tensor([[0.0], [2000.0]], dtype=F64)
    schedule = pair.process.schedule
    ratios = torch.logspace(math.log10(2000), -4, 4001, dtype=F64)
    for step in trajectory(ClassifierFree(pair, scale), Heun(), x, schedule.inverse(-2 * ratios.log()), cond=COND):
        x = step.x
    return x[0].item(), (x[1] - x[0]).item()


def test_known_mean_and_spread_under_guidance():
    mean, std = _terminal(3.0, Pair(1.0, 0.5, 0.5))
    assert mean == pytest.approx(2.99925, abs=2e-4)
    assert std == pytest.approx(0.5, abs=1e-4)
    assert _terminal(2.0, Pair(1.0, 0.5, 1.0))[1] == pytest.approx(0.25, abs=1e-4)  # the tilted density has .3780


def test_scale_one_is_conditional_zero_unconditional_and_between_it_is_affine():
    pair, x, t = Pair(1.0, 0.5, 0.8), torch.randn(4, 1, dtype=F64), torch.tensor(0.6, dtype=F64)
    cond, uncond = pair(x, t, COND).mean, pair(x, t, None).mean
    at = {s: ClassifierFree(pair, s)(x, t, COND).mean for s in (0.0, 1.0, 2.0, 4.5)}
    assert torch.equal(at[1.0], cond)
    assert torch.equal(at[0.0], uncond)
    for s in (2.0, 4.5):
        torch.testing.assert_close(at[s], uncond + s * (cond - uncond), rtol=0, atol=1e-12)
    torch.testing.assert_close(ClassifierFree(pair, 3.0)(x, t, None).mean, uncond, rtol=0, atol=0)


def test_outside_its_interval_guidance_does_nothing():
    pair, x = Pair(1.0, 0.5, 0.8), torch.randn(4, 1, dtype=F64)
    guided = ClassifierFree(pair, 3.0, interval=(0.1, 2.0))
    for ratio, acts in ((0.05, False), (0.5, True), (5.0, False)):
        t = pair.process.schedule.inverse(torch.tensor(-2 * math.log(ratio), dtype=F64))
        same = torch.equal(guided(x, t, COND).mean, pair(x, t, COND).mean)
        assert same is not acts

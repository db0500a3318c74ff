"""Classifier-free guidance and its kin against closed forms."""

import math
from itertools import pairwise

import pytest
import torch

from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.errors import UsageError
from langevin.exact import oracles
from langevin.guidance import APG, Autoguidance, CFGpp, ClassifierFree, Composed, Interval, Threshold
from langevin.solvers import trajectory
from langevin.solvers.base import level
from langevin.solvers.ddim import DDIM
from langevin.solvers.grids import Karras
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


COND = {"c": torch.ones(4)}
X = torch.randn(4, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
T = torch.tensor(0.6, dtype=F64)


def _terminal(scale: float, pair: Pair) -> tuple[float, float]:
    """(mean, std) at the end: the map from start to end is affine, so two starts tell it."""
    x = torch.tensor([[0.0], [2000.0]], dtype=F64)
    schedule = pair.process.schedule
    ratios = torch.logspace(math.log10(2000), -4, 4001, dtype=F64)
    cond = {"c": torch.ones(2)}
    for step in trajectory(ClassifierFree(pair, scale), Heun(), x, schedule.inverse(-2 * ratios.log()), cond=cond):
        x = step.x
    return x[0].item(), (x[1] - x[0]).item()


def test_known_mean_and_spread_under_guidance():
    mean, std = _terminal(3.0, Pair(1.0, 0.5, 0.5))
    assert mean == pytest.approx(2.99925, abs=2e-4)
    assert std == pytest.approx(0.5, abs=1e-4)
    assert _terminal(2.0, Pair(1.0, 0.5, 1.0))[1] == pytest.approx(0.25, abs=1e-4)  # the tilted density has .3780


KINDS = {
    "cfg": lambda d, s: ClassifierFree(d, s),
    "apg, all of it": lambda d, s: APG(d, s, parallel=1.0),
    "autoguidance with the unconditional": lambda d, s: Autoguidance(d, Plain(d), s),
    "compose": lambda d, s: _Alone(Composed(d, [({"c": torch.ones(1)}, s)])),
    "interval": lambda d, s: Interval(ClassifierFree(d, s), d),
}


class Plain(Denoiser):
    """Of a conditional denoiser, the unconditional one."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process

    def forward(self, x_t, t, cond=None):
        return self.inner(x_t, t, None)


class _Alone(Plain):
    """Asked with no condition, as a guidance that holds its own."""


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_scale_one_is_conditional_zero_unconditional_and_between_it_is_affine(make):
    pair = Pair(1.0, 0.5, 0.8)
    cond, uncond = pair(X, T, COND).mean, pair(X, T, None).mean
    assert (cond - uncond).abs().max() > 0.1
    for s in (0.0, 1.0, -1.5, 2.0, 4.5):
        torch.testing.assert_close(
            make(pair, s)(X, T, COND).mean, uncond + s * (cond - uncond), rtol=0, atol=1e-12, msg=str(s)
        )


def test_without_a_condition_nothing_is_guided():
    pair = Pair(1.0, 0.5, 0.8)
    for guided in (ClassifierFree(pair, 3.0), APG(pair, 3.0), CFGpp(pair, 0.6, Karras()(VE(), 8))):
        assert torch.equal(guided(X, T, None).mean, pair(X, T, None).mean)


def test_a_denoiser_guided_by_itself_is_itself():
    pair = Pair(1.0, 0.5, 0.8)
    for s in (0.0, 1.0, 3.0, 17.0):
        torch.testing.assert_close(
            Autoguidance(pair, pair, s)(X, T, COND).mean, pair(X, T, COND).mean, rtol=0, atol=1e-12
        )
    with pytest.raises(UsageError, match="schedule"):
        Autoguidance(pair, oracles.oracle_a(Flow()), 2.0)


def test_a_negative_condition_takes_the_place_of_none():
    mixture = oracles.oracle_a(VPLinear())
    x, label = X[:, :1], {"label": torch.ones(4, dtype=torch.long)}
    against = {"label": torch.tensor([0])}
    cond, away = mixture(x, T, label).mean, mixture(x, T, {"label": torch.zeros(4, dtype=torch.long)}).mean
    found = ClassifierFree(mixture, 2.5, against=against)(x, T, label).mean
    torch.testing.assert_close(found, away + 2.5 * (cond - away), rtol=0, atol=1e-12)
    plain = mixture(x, T, None).mean  # and from nothing, away from it
    found = ClassifierFree(mixture, 1.7, against=against)(x, T, None).mean
    torch.testing.assert_close(found, away + 1.7 * (plain - away), rtol=0, atol=1e-12)


def test_rescaling_gives_back_the_contrast_of_the_condition():
    pair = Pair(1.0, 0.5, 0.8)
    aim, guided = pair(X, T, COND).mean, ClassifierFree(pair, 6.0)(X, T, COND).mean
    whole = ClassifierFree(pair, 6.0, rescale=1.0)(X, T, COND).mean
    torch.testing.assert_close(whole.std(1), aim.std(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(whole / whole.std(1, keepdim=True), guided / guided.std(1, keepdim=True))
    part = ClassifierFree(pair, 6.0, rescale=0.7)(X, T, COND).mean
    torch.testing.assert_close(part, 0.7 * whole + 0.3 * guided, rtol=1e-12, atol=1e-12)
    with pytest.raises(UsageError, match="rescale"):
        ClassifierFree(pair, 2.0, rescale=1.5)


def test_outside_its_interval_guidance_does_nothing():
    pair = Pair(1.0, 0.5, 0.8)
    guided = Interval(ClassifierFree(pair, 3.0), pair, 0.1, 2.0)
    for ratio, acts in ((0.05, False), (0.5, True), (5.0, False)):
        t = pair.process.schedule.inverse(torch.tensor(-2 * math.log(ratio), dtype=F64))
        same = torch.equal(guided(X, t, COND).mean, pair(X, t, COND).mean)
        assert same is not acts
    with pytest.raises(UsageError, match="interval"):
        Interval(pair, pair, 2.0, 1.0)


def test_what_is_projected_is_across_and_no_longer_than_the_limit():
    pair = Pair(1.0, 0.5, 0.8)
    cond, uncond = pair(X, T, COND).mean, pair(X, T, None).mean
    shift = APG(pair, 4.0)(X, T, COND).mean - cond
    assert (shift * cond).sum(1).abs().max() < 1e-12
    away = cond - uncond
    rest = 3 * away - shift  # what was left out lies along cond
    torch.testing.assert_close(rest, (rest * cond).sum(1, keepdim=True) / cond.square().sum(1, keepdim=True) * cond)
    half = away.norm(dim=1).median().item()
    short = (APG(pair, 2.0, parallel=1.0, norm=half)(X, T, COND).mean - cond).norm(dim=1)
    torch.testing.assert_close(short, away.norm(dim=1).clamp(max=half), rtol=1e-12, atol=0)


def test_composed_gaussians_are_the_gaussian_of_their_weighted_means():
    """All of one spread: p(x) prod (p(x | c) / p(x))^w is Gaussian again, at every noise level with the same weights."""

    class Family(Denoiser):
        process = GaussianDiffusion(VPLinear())

        def forward(self, x_t, t, cond=None):
            m = cond["m"].to(x_t)[:, None] if cond and "m" in cond else torch.zeros(len(x_t), 1, dtype=x_t.dtype)
            alpha, sigma = self.process.coefficients(t, x_t)
            return Gaussian(m + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x_t - alpha * m))

    family = Family()
    composed = Composed(family, [({"m": torch.tensor([2.0])}, 0.7), ({"m": torch.tensor([-1.0])}, -0.4)])
    for t in (0.05, 0.4, 1.0):
        time = torch.tensor(t, dtype=F64)
        expected = family(X, time, {"m": torch.full((4,), 1.8)}).mean
        torch.testing.assert_close(composed(X, time).mean, expected, rtol=1e-7, atol=1e-7)  # 1.8 in single precision
    negative = Composed(family, [({"m": torch.tensor([2.0])}, -1.0)])
    assert torch.equal(negative(X, T).mean < family(X, T).mean, torch.ones_like(X, dtype=torch.bool))


@pytest.mark.parametrize("schedule", [VE(), VPLinear(), Flow()])
def test_a_ddim_step_of_cfgpp_is_the_papers(schedule):
    mixture, lam = oracles.oracle_a(schedule), 0.6
    times = Karras()(schedule, 9)
    guided, x = CFGpp(mixture, lam, times), oracles.starts(schedule, 20)
    label = {"label": torch.arange(20) % 2}
    for t, s in pairwise(times):
        at, to = level(schedule, t), level(schedule, s)
        cond, uncond = mixture(x, t, label).mean, mixture(x, t, None).mean
        eps = (x - at.alpha * uncond) / at.sigma
        paper = to.alpha * (uncond + lam * (cond - uncond)) + to.sigma * eps
        x, _ = DDIM().step(guided, x, at, to, DDIM().init(x), cond=label, noise=torch.zeros_like)
        torch.testing.assert_close(x, paper, rtol=1e-12, atol=1e-12)


def test_cfgpp_meets_ddim_where_it_is_neutral():
    schedule = VE()
    mixture, x = oracles.oracle_a(schedule), oracles.starts(schedule, 20)
    label = {"label": torch.arange(20) % 2}

    def last(denoiser, times, cond):
        *_, step = trajectory(denoiser, DDIM(), x, times, cond=cond)
        return step.x

    times = oracles.log_uniform(schedule, 12)  # equal ratios q: one strength for all steps
    q = (0.02 / 20) ** (1 / 12)
    conditional, plain = last(mixture, times, label), last(mixture, times, None)
    assert (conditional - plain).abs().max() > 0.3
    torch.testing.assert_close(last(CFGpp(mixture, 1 - q, times), times, label), conditional, rtol=1e-10, atol=1e-10)
    assert torch.equal(last(CFGpp(mixture, 0.0, times), times, label), plain)
    strong = last(ClassifierFree(mixture, 0.8 / (1 - q)), times, label)
    torch.testing.assert_close(last(CFGpp(mixture, 0.8, times), times, label), strong, rtol=1e-10, atol=1e-10)
    once = torch.tensor([times[0], 0.0], dtype=F64)
    torch.testing.assert_close(last(CFGpp(mixture, 1.0, once), once, label), last(mixture, once, label))


def test_thresholds():
    class Wide(Denoiser):
        process = GaussianDiffusion(VE())

        def forward(self, x_t, t, cond=None):
            return Gaussian(x_t, torch.full_like(x_t, 0.5))

    wide, x = Wide(), torch.tensor([[0.1, -0.5, 0.9, 0.2], [0.5, -3.0, 1.5, 4.0]], dtype=F64)
    static = Threshold(wide)(x, T)
    assert torch.equal(static.mean, x.clamp(-1, 1)) and torch.equal(static.var, torch.full_like(x, 0.5))
    assert torch.equal(Threshold(wide, bound=5.0)(x, T).mean, x)  # within it nothing happens
    assert torch.equal(Threshold(wide, bound=5.0, quantile=0.5)(x, T).mean, x)
    dynamic = Threshold(wide, quantile=1.0)(x, T).mean
    torch.testing.assert_close(dynamic, torch.stack([x[0], x[1] / 4]), rtol=1e-6, atol=0)
    dynamic = Threshold(wide, quantile=2 / 3)(x, T).mean  # of .5, 1.5, 3, 4 the third
    torch.testing.assert_close(dynamic[1], x[1].clamp(-3, 3) / 3, rtol=1e-6, atol=0)
    for twice in (Threshold(Threshold(wide)), Threshold(Threshold(wide, quantile=0.8))):
        assert torch.equal(twice(x, T).mean, twice.denoiser(x, T).mean)
    with pytest.raises(UsageError, match="threshold"):
        Threshold(wide, quantile=1.5)

"""Solvers of one step, stochastic, adaptive and special: identities, papers' formulas, laws of their own."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Tensor

from langevin import rng
from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion
from langevin.diffusion.schedules import VE, Cosine, Flow, Tabulated, VPLinear, zero_terminal
from langevin.errors import DivergedError
from langevin.exact import oracles
from langevin.recipes import solver_oracles as measure
from langevin.recipes.solver_oracles import last
from langevin.solvers import Solver, sample, trajectory
from langevin.solvers.ancestral import Ancestral
from langevin.solvers.annealed_langevin import AnnealedLangevin
from langevin.solvers.base import level, levels
from langevin.solvers.consistency import Consistency
from langevin.solvers.ddim import DDIM
from langevin.solvers.dpm_2 import DPM2
from langevin.solvers.dpm_3 import DPM3
from langevin.solvers.dpm_adaptive import DPMAdaptive
from langevin.solvers.dpmpp_2s import DPMpp2S
from langevin.solvers.dpmpp_3s import DPMpp3S
from langevin.solvers.dpmpp_sde import DPMppSDE
from langevin.solvers.edm import EDM
from langevin.solvers.euler import Euler
from langevin.solvers.euler_ancestral import EulerAncestral
from langevin.solvers.exponential import weight
from langevin.solvers.grids import Karras, Uniform
from langevin.solvers.heun import Heun
from langevin.solvers.paradigms import Paradigms
from langevin.solvers.predictor_corrector import PredictorCorrector
from langevin.solvers.restart import Restart
from langevin.solvers.rk4 import RK4
from langevin.solvers.rk45 import RK45
from langevin.solvers.tcd import TCD

F64 = torch.float64
SCHEDULES = [VE(), VPLinear(), Flow(), zero_terminal(Tabulated.linear())]

SAME = [
    ("euler is ddim", Euler(), DDIM()),
    ("euler ancestral without noise is ddim", EulerAncestral(0.0), DDIM()),
    ("euler ancestral is ddim with eta", EulerAncestral(0.6), DDIM(0.6)),
    ("euler ancestral is ancestral", EulerAncestral(), Ancestral("small")),
    ("edm without churn is heun", EDM(), Heun()),
    ("edm with churn nowhere is heun", EDM(9.0, s_tmin=1e6, s_tmax=1e7), Heun()),
    ("dpm++ sde without noise is dpm++ 2s", DPMppSDE(0.0), DPMpp2S()),
    ("tcd of gamma 0 is ddim", TCD(0.0), DDIM()),
    ("tcd of gamma 1 is consistency", TCD(1.0), Consistency()),
    ("restart without an interval is its base", Restart(DPM2(), ()), DPM2()),
    ("restart where no step goes is its base", Restart(Heun(), ((1e-9, 1e-8, 2, 3),)), Heun()),
    ("a predictor alone", PredictorCorrector(DDIM(1.0), num_corrections=0), DDIM(1.0)),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("one", "other"), [c[1:] for c in SAME], ids=[c[0] for c in SAME])
def test_one_and_the_same(one: Solver, other: Solver, schedule) -> None:
    denoiser, x = oracles.oracle_a(schedule), oracles.starts(schedule, 20)
    for times in (Karras()(schedule, 9), Uniform()(schedule, 9)):
        a, b = (trajectory(denoiser, s, x, times, noise=rng.keyed(range(20))) for s in (one, other))
        for p, q in zip(a, b, strict=True):
            torch.testing.assert_close(p.x / x.abs().max(), q.x / x.abs().max(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("solver", "constant"),
    [(DPM2(), 1.68e-3), (DPMpp2S(), 1.65e-3), (DPM3(), 1.42e-5), (DPMpp3S(), 3.03e-5), (RK4(), 1.30e-5)],
)
def test_error_in_32_steps_is_below_what_is_known_of_like_methods(solver: Solver, constant: float) -> None:
    """Heun 3.5e-3, the multistep one 2.0e-3 and another Runge-Kutta method of order 4 2.3e-5; and the order's own ratio."""
    at_32, at_64 = (measure.end_error(solver, n) for n in (32, 64))
    assert at_32 < {2: 2.0e-3, 3: 1e-4, 4: 2.3e-5}[solver.order]
    assert abs(at_32 / constant - 1) < 0.05
    assert abs(math.log2(at_32 / at_64) - solver.order) < 0.35


@pytest.mark.parametrize("k", [-30.0, -1.0, -0.0101, -0.0099, 1e-9, 0.0099, 0.0101, 1.0, 30.0])
def test_the_weight_of_a_stage_is_the_mean_of_a_linear_answer(k: float) -> None:
    """integral of e^mu mu / k over [0, k], over that of e^mu: Simpson in many parts."""
    mu = torch.linspace(0, k, 20001, dtype=F64)
    simpson = torch.tensor([1.0] + [4.0, 2.0] * 9999 + [4.0, 1.0], dtype=F64)
    density = simpson * torch.exp(mu - max(k, 0.0))
    assert abs((density * mu).sum() / density.sum() / k - weight(k)).item() < 1e-11


def by_hand(solver: Solver, x: Tensor, t: float, s: float, *draws: Tensor) -> Tensor:
    schedule, queue = VPLinear(), list(draws)
    at, to = levels(schedule, torch.tensor([t, s], dtype=F64))
    denoiser = oracles.oracle_a(schedule)
    x, _ = solver.step(denoiser, x, at, to, solver.init(x), cond=None, noise=lambda like: queue.pop(0))
    assert not queue
    return x


def test_steps_are_their_papers() -> None:
    """In the papers' own variables, on the variance-preserving schedule, from t = .7 to .5."""
    schedule = VPLinear()
    denoiser = oracles.oracle_a(schedule)
    x = oracles.starts(schedule, 9)
    z, w = rng.keyed(range(9))(1)(x), rng.keyed(range(9))(2)(x)
    t, s = (level(schedule, torch.tensor(a, dtype=F64)) for a in (0.7, 0.5))

    def at(lam: float) -> tuple[Tensor, float, float]:
        time = schedule.inverse(torch.tensor(2 * lam, dtype=F64))
        return time, schedule.alpha(time).item(), schedule.sigma(time).item()

    def eps(x: Tensor, lam: float) -> Tensor:
        time, alpha, sigma = at(lam)
        return (x - alpha * denoiser(x, time).mean) / sigma

    h = s.lam - t.lam
    # DPM-Solver, algorithm 1
    _, a, b = at(t.lam + h / 2)
    u = a / t.alpha * x - b * math.expm1(h / 2) * eps(x, t.lam)
    expected = s.alpha / t.alpha * x - s.sigma * math.expm1(h) * eps(u, t.lam + h / 2)
    torch.testing.assert_close(by_hand(DPM2(), x, 0.7, 0.5), expected, rtol=0, atol=1e-12)
    # DPM-Solver, algorithm 2
    r1, r2 = 1 / 3, 2 / 3
    _, a1, b1 = at(t.lam + r1 * h)
    _, a2, b2 = at(t.lam + r2 * h)
    e = eps(x, t.lam)
    u = a1 / t.alpha * x - b1 * math.expm1(r1 * h) * e
    d1 = eps(u, t.lam + r1 * h) - e
    u = a2 / t.alpha * x - b2 * math.expm1(r2 * h) * e - b2 * r2 / r1 * (math.expm1(r2 * h) / (r2 * h) - 1) * d1
    d2 = eps(u, t.lam + r2 * h) - e
    expected = s.alpha / t.alpha * x - s.sigma * math.expm1(h) * e - s.sigma / r2 * (math.expm1(h) / h - 1) * d2
    torch.testing.assert_close(by_hand(DPM3(), x, 0.7, 0.5), expected, rtol=0, atol=1e-12)
    # Karras et al., algorithm 2, in y = x / alpha
    r_t, r_s = t.sigma / t.alpha, s.sigma / s.alpha
    gamma = 2 * h / math.log(80 / 0.002)
    r = r_t * (1 + gamma)
    y = x / t.alpha + math.sqrt(r**2 - r_t**2) * 1.01 * z
    time, a, _ = at(-math.log(r))
    d = (y - denoiser(a * y, time).mean) / r
    euler = y + (r_s - r) * d
    d_next = (euler - denoiser(s.alpha * euler, s.t).mean) / r_s
    expected = s.alpha * (y + (r_s - r) * (d + d_next) / 2)
    torch.testing.assert_close(by_hand(EDM(2.0, s_noise=1.01), x, 0.7, 0.5, z), expected, rtol=0, atol=1e-12)
    # Langevin moves: Song and Ermon's, then Song et al.'s with |score| = |z| / sigma
    score = (s.alpha * denoiser(y := x * s.alpha / t.alpha, s.t).mean - y) / s.sigma**2
    moved = y + 0.1 * s.sigma**2 * score + math.sqrt(0.2) * s.sigma * w
    torch.testing.assert_close(by_hand(AnnealedLangevin(1), x, 0.7, 0.5, w), moved, rtol=0, atol=1e-12)
    y = by_hand(DDIM(1.0), x, 0.7, 0.5, z)
    score = (s.alpha * denoiser(y, s.t).mean - y) / s.sigma**2
    size = 2 * (0.16 * s.sigma) ** 2
    moved = y + size * score + math.sqrt(2 * size) * w
    torch.testing.assert_close(by_hand(PredictorCorrector(DDIM(1.0)), x, 0.7, 0.5, z, w), moved, rtol=0, atol=1e-12)


def test_fresh_noise_on_top_leaves_the_law_of_an_exact_flow() -> None:
    """One step of a high order, with eta, on Gaussian data: the variance is right to that order."""
    for eta in (0.3, 1.0, 1.4):
        assert measure.law_order(DPM2(eta)) > 1.85
        assert abs(measure.variance_ratio(DPMpp3S(eta), 64) - 1) < 2e-3


def test_a_corrector_moves_a_law_that_is_right_by_little() -> None:
    for num_steps in (16, 64, 256):
        assert abs(measure.variance_ratio(PredictorCorrector(), num_steps) - 1) < 0.01


def test_annealed_langevin_of_the_paper_samples_a_mixture() -> None:
    schedule = VE()
    denoiser, x = oracles.oracle_a(schedule), oracles.starts(schedule, 800)
    times = oracles.log_uniform(schedule, 12)
    end = last(denoiser, AnnealedLangevin(), x, times, generated(3))
    assert stats.kstest(denoiser.cdf(end, times[-1]).numpy(), "uniform").pvalue > 1e-3


def generated(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda step: lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


class End(Denoiser):
    """Answers where the probability flow of oracle A ends."""

    def __init__(self, schedule) -> None:
        super().__init__()
        self.inner = oracles.oracle_a(schedule)
        self.process = self.inner.process

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
        return Gaussian(oracles.flow_map(self.inner, x_t, t, torch.zeros((), dtype=F64)))


@pytest.mark.parametrize("schedule", [VE(), VPLinear(), Flow()])
def test_a_consistency_function_is_exact_in_any_number_of_steps(schedule) -> None:
    for num_steps in (1, 2, 5):
        times = torch.cat([oracles.log_uniform(schedule, num_steps, low=0.3)[:-1], torch.zeros(1, dtype=F64)])
        x = last(End(schedule), Consistency(), oracles.starts(schedule, 1000), times, generated(num_steps))
        u = End(schedule).inner.cdf(x, 0.0).numpy()
        assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert abs(measure.mapped_ratio(Consistency(), 7) - 1) < 1e-12


@pytest.mark.parametrize("gamma", [0.2, 0.7])
def test_tcd_goes_below_and_comes_back_by_the_forward_process(gamma: float) -> None:
    """Zheng et al. 2024, eq. 20: alpha_s / alpha_s' x_s' + sqrt(1 - alpha_s^2 / alpha_s'^2) z on the VP schedule."""
    schedule, x = VPLinear(), oracles.starts(VPLinear(), 9)
    z = rng.keyed(range(9))(1)(x)
    t, below, s = levels(schedule, torch.tensor([0.7, 0.5 * (1 - gamma), 0.5], dtype=F64))
    x0 = oracles.oracle_a(schedule)(x, t.t).mean
    down = below.alpha * x0 + below.sigma * (x - t.alpha * x0) / t.sigma
    keep = s.alpha / below.alpha
    torch.testing.assert_close(by_hand(TCD(gamma), x, 0.7, 0.5, z), keep * down + math.sqrt(1 - keep**2) * z)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("parallel", [1, 5, 12])
def test_parallel_steps_are_those_of_ddim(schedule, parallel: int) -> None:
    solver = Paradigms(parallel, tolerance=0.0)
    denoiser, calls = oracles.oracle_a(schedule), []
    denoiser.register_forward_pre_hook(lambda *args: calls.append(1))
    x = oracles.starts(schedule, 20)
    ends = levels(schedule, torch.tensor([1.0, 0.4, 0.0], dtype=F64))
    for at, to in pairwise(ends):
        times = torch.stack([here.t for here in solver.inside(denoiser, at, to)])
        calls.clear()
        found, _ = solver.step(denoiser, x, at, to, solver.init(x), cond=None, noise=torch.zeros_like)
        assert len(calls) <= parallel
        x = last(denoiser, DDIM(), x, times)
        torch.testing.assert_close(found, x, rtol=0, atol=1e-12)


def test_a_tolerance_saves_rounds_and_costs_no_more_than_it_says() -> None:
    schedule = VPLinear()
    denoiser, calls, x = oracles.oracle_a(schedule), [], oracles.starts(VPLinear(), 20)
    denoiser.register_forward_pre_hook(lambda *args: calls.append(1))
    at, to = levels(schedule, torch.tensor([1.0, 0.0], dtype=F64))
    exact, _ = Paradigms(64, 0.0).step(denoiser, x, at, to, Paradigms().init(x), cond=None, noise=torch.zeros_like)
    calls.clear()
    found, _ = Paradigms(64, 1e-3).step(denoiser, x, at, to, Paradigms().init(x), cond=None, noise=torch.zeros_like)
    assert len(calls) < 32
    assert (found - exact).abs().max() < 5e-3


@pytest.mark.parametrize("solver", [RK45, DPMAdaptive])
def test_errors_fall_with_the_tolerance_and_calls_rise_slowly(solver) -> None:
    schedule = VE()
    denoiser, x, calls = oracles.oracle_a(schedule), oracles.starts(schedule), []
    denoiser.register_forward_pre_hook(lambda *args: calls.append(1))
    times = oracles.log_uniform(schedule, 1)
    exact = oracles.flow_map(denoiser, x, times[0], times[-1])
    for tolerance in (1e-3, 1e-4, 1e-5, 1e-6):
        calls.clear()
        error = (last(denoiser, solver(tolerance, tolerance), x, times) - exact).abs()
        assert error.mean() < 10 * tolerance and error.max() < 100 * tolerance
    assert len(calls) < 6 * (1000 if solver is DPMAdaptive else 40)


@pytest.mark.parametrize("solver", [RK45(1e-5, 1e-5), DPMAdaptive(1e-5, 1e-5)])
def test_adaptive_steps_go_the_other_way_too(solver: Solver) -> None:
    for schedule in (VE(), Flow()):
        denoiser, ends = oracles.oracle_a(schedule), oracles.log_uniform(schedule, 1)
        data = oracles.flow_map(denoiser, oracles.starts(schedule, 50), ends[0], ends[1])
        up = last(denoiser, solver, data, ends.flip(0))
        torch.testing.assert_close(up, oracles.flow_map(denoiser, data, ends[1], ends[0]), rtol=1e-2, atol=1e-2)
        assert (last(denoiser, solver, up, ends) - data).abs().max() < 3e-3


@pytest.mark.parametrize("solver", [RK45(), DPMAdaptive()])
def test_answers_that_are_not_numbers_end_an_adaptive_solver(solver: Solver) -> None:
    class Broken(Denoiser):
        process = GaussianDiffusion(Cosine())

        def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
            return Gaussian(x_t * math.nan)

    with pytest.raises(DivergedError, match="finite"):
        sample(Broken(), solver, (1,), torch.tensor([1.0, 0.0]), seeds=[0])


def test_a_restart_is_what_its_paper_says() -> None:
    """Heun to the level at or below `low`, up by noise to `high`, Heun in `steps` steps, `times` times."""
    schedule = VE()
    denoiser, times = oracles.oracle_a(schedule), oracles.log_uniform(schedule, 8)
    x = oracles.starts(schedule, 9)
    r = schedule.sigma(times).tolist()
    noise = [rng.keyed(range(9))(i)(x) for i in (1, 2)]
    k = next(i for i in range(9) if r[i] <= 0.3)
    y = last(denoiser, Heun(), x, times[: k + 1])
    up = schedule.inverse(-2 * torch.linspace(math.log(1.5), math.log(r[k]), 4, dtype=F64))
    for z in noise:
        y = last(denoiser, Heun(), y + math.sqrt(1.5**2 - r[k] ** 2) * z, up)
    y = last(denoiser, Heun(), y, times[k:])
    queue = list(noise)
    found = last(denoiser, Restart(Heun(), ((0.3, 1.5, 3, 2),)), x, times, lambda step: lambda like: queue.pop(0))
    torch.testing.assert_close(found, y, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DPM2(-1.0), "eta"),
        (lambda: EulerAncestral(1.0, math.nan), "s_noise"),
        (lambda: EDM(-1.0), "s_churn"),
        (lambda: EDM(1.0, 2.0, 1.0), "s_tmin"),
        (lambda: DPMppSDE(r=0.0), "r must"),
        (lambda: TCD(1.5), "gamma"),
        (lambda: AnnealedLangevin(0), "num_moves"),
        (lambda: PredictorCorrector(snr=0.0), "snr"),
        (lambda: Restart(intervals=((1.0, 0.5, 1, 1),)), "interval"),
        (lambda: Paradigms(0), "parallel"),
        (lambda: RK45(rtol=0.0), "rtol"),
    ],
)
def test_settings_that_cannot_be(make, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()

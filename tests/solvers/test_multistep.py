"""Multistep solvers: weights against integrals in high precision, solvers that are one and the same, orders."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Tensor

from langevin import rng
from langevin.diffusion.schedules import VE, Flow, Tabulated, VPLinear, zero_terminal
from langevin.exact import oracles
from langevin.recipes import solver_oracles as measure
from langevin.recipes.solver_oracles import last
from langevin.solvers import multistep
from langevin.solvers.adams import Adams
from langevin.solvers.ddim import DDIM
from langevin.solvers.deis import DEIS
from langevin.solvers.dpm import DPM
from langevin.solvers.dpmpp import DPMpp
from langevin.solvers.grids import Karras, Uniform
from langevin.solvers.heun import Heun
from langevin.solvers.ipndm import IPNDM
from langevin.solvers.lms import LMS
from langevin.solvers.pndm import PNDM
from langevin.solvers.sa_solver import SASolver
from langevin.solvers.unipc import UniPC

F64 = torch.float64
SCHEDULES = [VE(), VPLinear(), Flow(), zero_terminal(Tabulated.linear())]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
SPACES = ("x0", "eps", "flow", "v")


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("predict", SPACES)
@pytest.mark.parametrize("variable", ["lam", "mu"])
def test_weights_are_the_integrals(predict: multistep.Predict, variable: multistep.Variable) -> None:
    """Against adaptive quadrature in mu itself, of a Lagrange basis through NumPy's polynomial of the same values."""
    row = multistep.space(predict)
    lam_of = {
        "x0": math.log,
        "eps": lambda mu: -math.log(mu),
        "flow": lambda mu: math.log((1 - mu) / mu),
        "v": lambda mu: -math.log(math.tan(mu)),
    }[predict]
    for start, end, step in ((-3.0, -2.4, -0.5), (2.0, 5.1, -1.1), (1.0, 0.2, 0.3)):
        for num in (1, 2, 3, 4):
            nodes = tuple(start + step * j - 0.07 * j * j for j in range(num))
            u = (lambda lam: lam) if variable == "lam" else row.mu
            found = multistep.integrals(row, variable, nodes, start, end)
            for j in range(num):
                basis = np.polynomial.polynomial.polyfit([u(n) for n in nodes], np.eye(num)[j], num - 1)
                values = partial(np.polynomial.polynomial.polyval, c=basis)
                expected, _ = quad(
                    lambda mu, f=values, u=u: f(u(lam_of(mu))), row.mu(start), row.mu(end), epsabs=1e-14, epsrel=1e-13
                )
                assert abs(found[j] - expected) < 1e-9 * max(1, abs(expected), *map(abs, found))


def test_the_rate_is_the_derivative_of_mu() -> None:
    for row in (*map(multistep.space, SPACES), multistep.space("x0", 0.7)):
        for lam in (-3.0, -0.4, 0.0, 2.5):
            slope = (row.mu(lam + 1e-5) - row.mu(lam - 1e-5)) / 2e-5
            assert abs(slope / row.rate(lam) - 1) < 1e-8


@every_schedule
@pytest.mark.parametrize("predict", SPACES)
def test_one_answer_is_ddim(schedule, predict: multistep.Predict) -> None:
    denoiser, x = oracles.oracle_a(schedule), oracles.starts(schedule, 20)
    for times in (Karras()(schedule, 12), Uniform()(schedule, 12)):
        solvers = [Adams(1, predict), Adams(1, predict, "mu"), Adams(1, predict, "t"), DPMpp(1)]
        for steps in zip(*(measure.trajectory(denoiser, s, x, times) for s in (DDIM(), *solvers)), strict=True):
            for step in steps[1:]:
                close(step.x, steps[0].x)


@pytest.mark.parametrize("predict", ["x0", "eps", "flow"])
def test_the_integral_of_one_value_is_ddims(predict: multistep.Predict) -> None:
    """In v space it is Euler's step in the angle."""
    row = multistep.space(predict)
    for start, end in ((-4.0, -3.1), (0.3, 2.9)):
        (found,) = multistep.integrals(row, "lam", (start,), start, end)
        assert abs(found / (row.mu(end) - row.mu(start)) - 1) < 1e-13


@pytest.mark.parametrize(("k", "weights"), [(2, [3, -1]), (3, [23, -16, 5]), (4, [55, -59, 37, -9])])
def test_equal_steps_give_the_weights_of_adams_and_bashforth(k: int, weights: list[int]) -> None:
    h, row = 0.02, multistep.space("flow")
    lam = lambda mu: math.log((1 - mu) / mu)  # noqa: E731
    nodes = tuple(lam(0.5 + h * j) for j in range(k))
    for variable in ("mu", "index"):
        found = multistep.integrals(row, variable, nodes, nodes[0], lam(0.5 - h))  # type: ignore[arg-type]
        np.testing.assert_allclose(found, -h * np.array(weights) / sum(weights), rtol=1e-11)
        moulton = multistep.integrals(row, variable, nodes[:3], nodes[1], nodes[0])  # type: ignore[arg-type]
        np.testing.assert_allclose(moulton, -h * np.array([5, 8, -1] if k > 2 else [6, 6]) / 12, rtol=1e-11)


def test_a_corrector_in_the_sum_is_the_corrector_written_out() -> None:
    """Predict, evaluate, correct, in x, with every earlier x kept."""
    schedule, num = VPLinear(), 9
    denoiser, x, times = oracles.oracle_a(schedule), oracles.starts(schedule, 20), oracles.log_uniform(schedule, num)
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    lam = [math.log(a / s) for a, s in zip(alpha, sigma, strict=True)]
    row = multistep.space("eps")
    m: list[Tensor] = []
    before = predicted = x
    for i in range(num):
        m.append((predicted - alpha[i] * denoiser(predicted, times[i]).mean) / sigma[i])
        corrected = predicted
        if i > 0:
            n = min(i + 1, 3)
            weights = multistep.integrals(row, "lam", tuple(lam[i - j] for j in range(n)), lam[i - 1], lam[i])
            corrected = alpha[i] / alpha[i - 1] * before
            corrected = corrected + alpha[i] * sum(w * m[i - j] for j, w in enumerate(weights))
        n = min(i + 1, 2)
        weights = multistep.integrals(row, "lam", tuple(lam[i - j] for j in range(n)), lam[i], lam[i + 1])
        predicted = alpha[i + 1] / alpha[i] * corrected
        predicted = predicted + alpha[i + 1] * sum(w * m[i - j] for j, w in enumerate(weights))
        before = corrected
    close(last(denoiser, Adams(3, "eps", "lam", "always"), x, times), predicted)


@pytest.mark.parametrize(
    ("solver", "slope"),
    [
        (Adams(2, "v"), 2),
        (Adams(2, "eps", "mu"), 2),
        (Adams(3, "x0"), 3),
        (Adams(3, "eps", "lam"), 3),
        (Adams(3, "eps", "t"), 3),
        (Adams(3, "flow", "mu"), 3),
        (Adams(2, "v", "lam", "always"), 2),
        (Adams(4, "x0"), 4),
        (Adams(4, "x0", "lam", "always"), 4),
        (Adams(4, "x0", "lam", "never"), 2.2),  # one first-order step at the start costs two orders
        (Adams(3, "eps", "lam", "never"), 2.8),
        (UniPC(1), 2),
        (UniPC(2, "bh1"), 3),
        (UniPC(2, "bh2", "eps"), 3),
        (UniPC(3, "bh1"), 4),
        (UniPC(3, "bh2"), 4),
        (UniPC(4, "bh1"), 4),
        (LMS(3), 3),
        (LMS(4), 4),
        (LMS(4, "never"), 3.4),
        (DEIS(2), 2),
        (DEIS(3, "t"), 3),
        (DEIS(3, "mu"), 3),
        (DPM(3), 3),
        (Adams(4, "eps", "index"), 2),  # taking unequal steps for equal ones
    ],
)
def test_orders(solver: multistep.Multistep, slope: float) -> None:
    assert abs(measure.order(solver) - slope) < 0.15


def test_the_third_order_of_dpmpp_needs_twice_the_published_weight() -> None:
    """The same steps with phi_3 in place of 2 phi_3 are of second order, and worse from 32 steps on."""
    schedule = VE()
    denoiser, x = oracles.oracle_a(schedule), oracles.starts(schedule)

    def published(num: int) -> float:
        times = oracles.log_uniform(schedule, num)
        sigma = schedule.sigma(times).tolist()
        y, m = x, []
        for i, (a, b) in enumerate(pairwise(sigma)):
            m.append(denoiser(y, times[i]).mean)
            h = math.log(a / b)
            D1, D2 = torch.zeros_like(y), torch.zeros_like(y)
            if i == 1:
                D1 = m[-1] - m[-2]
            if i > 1:  # steps are equal in lam: r0 = r1 = 1
                D1_0, D1_1 = m[-1] - m[-2], m[-2] - m[-3]
                D1, D2 = D1_0 + (D1_0 - D1_1) / 2, (D1_0 - D1_1) / 2
            phi_2, phi_3 = math.expm1(-h) / h + 1, (math.expm1(-h) + h) / h**2 - 0.5
            y = b / a * y - math.expm1(-h) * m[-1] + phi_2 * D1 - phi_3 * D2
        return (y - oracles.flow_map(denoiser, x, times[0], times[-1])).abs().mean().item()

    assert abs(oracles.slope(published) - 2) < 0.15
    assert abs(measure.order(DPMpp(3)) - 3) < 0.1
    for num in (32, 128):
        assert measure.end_error(DPMpp(3), num) < 0.8 * published(num)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_the_law_of_the_diffusion_is_of_second_order(order: int, eta: float) -> None:
    """Also where three values are combined: the answers are as rough as the noise."""
    assert abs(measure.law_order(DPMpp(order, eta)) - 2) < 0.2


def test_samples_of_the_third_order_with_noise_have_the_law_of_the_data() -> None:
    schedule, num = VPLinear(), 1500
    denoiser, times = oracles.oracle_a(schedule), oracles.log_uniform(schedule, 150)
    start = oracles.starts(schedule, num)[torch.randperm(num, generator=torch.Generator().manual_seed(0))]
    for solver in (DPMpp(3, 1.0), SASolver(3, 4), SASolver(2, 2, 0.5, "exact")):
        end = last(denoiser, solver, start, times, rng.keyed(range(num)))
        assert stats.kstest(denoiser.cdf(end, times[-1]).numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize(
    ("s", "s_hat", "low", "high"),
    [(1, 0, 0.8, 1.1), (1, 1, 0.6, 1.1), (2, 1, 0.9, 1.1), (2, 0, 1.9, 2.1), (2, 3, 1.9, 3), (3, 3, 1.8, 2.2)],
)
def test_the_law_of_sa_solver(s: int, s_hat: int, low: float, high: float, eta: float) -> None:
    """Of second order from two values on; a corrector of one value, the new one, takes that away."""
    assert low < measure.law_order(SASolver(s, s_hat, eta)) < high


def test_noise_in_part_of_the_way() -> None:
    """With eta that changes on the way the corrector still corrects the step that was: third values agree as they should."""
    inside, whole = SASolver(2, 3, 1.0, "exact", (0.5, 3.0)), SASolver(2, 3, 1.0, "exact")
    none, flow = SASolver(2, 3, 1.0, "exact", (7.0, 6.0)), Adams(3, "x0", "lam", "always")
    denoiser, x, times = (
        oracles.oracle_a(VPLinear()),
        oracles.starts(VPLinear(), 20),
        oracles.log_uniform(VPLinear(), 30),
    )
    noise = rng.keyed(range(20))
    close(last(denoiser, none, x, times, noise), last(denoiser, flow, x, times))
    assert (last(denoiser, inside, x, times, noise) - last(denoiser, whole, x, times, noise)).abs().max() > 0.01
    assert abs(measure.law_order(inside) - measure.law_order(whole)) < 0.8
    assert abs(measure.variance_ratio(inside, 256) - 1) < 1e-3


def test_unip_is_exponential_adams_from_three_values_on() -> None:
    denoiser, x, times = (
        oracles.oracle_a(VPLinear()),
        oracles.starts(VPLinear(), 20),
        oracles.log_uniform(VPLinear(), 9),
    )
    steps = list(measure.trajectory(denoiser, Adams(4, "eps", "lam", "never"), x, times))
    for k, p in ((2, 3), (5, 4)):
        solver, plain = (UniPC(p, "bh1", "eps", "never"), Adams(p, "eps", "lam", "never"))
        a, b = (next(measure.trajectory(denoiser, s, x, times, resume=steps[k])) for s in (solver, plain))
        close(a.x, b.x)


def test_two_values_are_those_of_dpm_solver() -> None:
    """UniP-2 with B(h) = e^h - 1 is DPM-Solver++(2M), or DPM-Solver-2 on eps_hat."""
    denoiser, x, times = oracles.oracle_a(VPLinear()), oracles.starts(VPLinear(), 20), Karras()(VPLinear(), 9)
    close(last(denoiser, UniPC(2, correct="never"), x, times), last(denoiser, DPMpp(), x, times))
    close(last(denoiser, UniPC(2, "bh2", "eps", "never"), x, times), last(denoiser, DPM(), x, times))


def test_names_for_adams() -> None:
    denoiser, x, times = oracles.oracle_a(Flow()), oracles.starts(Flow(), 20), oracles.log_uniform(Flow(), 9)
    for named, plain in (
        (LMS(3), Adams(3, "eps", "mu")),
        (DEIS(), Adams(3, "eps")),
        (DEIS(4, "t", "always"), Adams(4, "eps", "t", "always")),
        (IPNDM(3), Adams(3, "eps", "index", "never")),
    ):
        assert torch.equal(last(denoiser, named, x, times), last(denoiser, plain, x, times))


def test_pndm_starts_with_heun() -> None:
    denoiser, x, times = oracles.oracle_a(VE()), oracles.starts(VE(), 20), oracles.log_uniform(VE(), 5)
    heun, pndm = (next(measure.trajectory(denoiser, s, x, times)).x for s in (Heun(), PNDM()))
    close(pndm, heun)


@pytest.mark.parametrize("schedule", [VE(), VPLinear()])
def test_a_vanishing_eta_is_the_probability_flow(schedule) -> None:
    denoiser, x, times = oracles.oracle_a(schedule), oracles.starts(schedule, 20), Karras()(schedule, 10)
    for order in (1, 2):
        found = last(denoiser, DPMpp(order, 1e-30), x, times, rng.keyed(range(20)))
        close(found, last(denoiser, DPMpp(order), x, times))


@pytest.mark.parametrize(
    "settings",
    [{"order": 0}, {"order": 7}, {"predict": "noise"}, {"variable": "sigma"}, {"correct": "sometimes"}],
)
def test_settings_that_cannot_be(settings: dict) -> None:
    with pytest.raises(ValueError, match=r"not (0|7|'noise'|'sigma'|'sometimes')"):
        Adams(**settings)
    with pytest.raises(ValueError, match="eta"):
        DPMpp(eta=-0.1)

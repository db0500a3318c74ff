"""What every solver keeps, in each of its variants; a new file is found by itself."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from langevin import rng
from langevin.diffusion import GaussianDiffusion, NetworkDenoiser, Schedule
from langevin.diffusion.parametrization import Eps, LearnedVariance, Parametrization, V
from langevin.diffusion.schedules import VE, Cosine, Flow, VPLinear
from langevin.exact import EmpiricalDenoiser, oracles
from langevin.recipes import solver_oracles as measure
from langevin.registry import build, describe, names
from langevin.solvers import Solver, sample, trajectory
from langevin.solvers.grids import Grid, Karras, Uniform

F64 = torch.float64
SOLVERS = measure.registered()
SCHEDULES = oracles.schedules()
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def those(keep: Callable[[Solver[Any]], bool]) -> Any:
    found = {name: solver for name, solver in SOLVERS.items() if keep(solver)}
    return pytest.mark.parametrize("solver", found.values(), ids=found)


deterministic = those(lambda s: not s.stochastic)
stochastic = those(lambda s: s.stochastic)
of_an_order = those(lambda s: not s.stochastic and not s.adaptive and not s.few_step)
adaptive = those(lambda s: s.adaptive)
lawful = those(lambda s: s.stochastic and not s.few_step)
few_step = those(lambda s: s.few_step)
never_waiting = those(lambda s: not s.adaptive)
counted = those(lambda s: s.evaluations > 0)


@of_an_order
def test_order(solver: Solver[Any]) -> None:
    assert abs(measure.order(solver) - solver.order) < 0.15


@pytest.mark.parametrize(
    ("name", "at_32", "at_512"), [("ddim", 3.1e-2, 1.9e-3), ("heun", 3.5e-3, 1.3e-5), ("dpmpp", 2.0e-3, 7.2e-6)]
)
def test_error_is_the_known_one(name: str, at_32: float, at_512: float) -> None:
    """Figures of a stand-alone script with random starts; these are spread evenly, which moves them by a few percent."""
    assert abs(measure.end_error(SOLVERS[name], 32) / at_32 - 1) < 0.04
    assert abs(measure.end_error(SOLVERS[name], 512) / at_512 - 1) < 0.04
    assert abs(measure.end_error(SOLVERS[name], 32) / measure.ERRORS_AT_32[name] - 1) < 0.005


@adaptive
def test_few_steps_are_enough_by_tolerance(solver: Solver[Any]) -> None:
    assert measure.end_error(solver, 4) < 0.02


@few_step
def test_an_exact_map_to_the_end_gives_the_law(solver: Solver[Any]) -> None:
    assert abs(measure.mapped_ratio(solver) - 1) < 0.01


@lawful
def test_variance_of_gaussian_data(solver: Solver[Any]) -> None:
    """Exact: it tends to the true one, at least as fast as the order says."""
    assert measure.law_order(solver) > solver.order - 0.15
    assert abs(measure.variance_ratio(solver, 256) - 1) < 0.05


@lawful
def test_samples_of_a_mixture_have_its_law(solver: Solver[Any]) -> None:
    schedule, num = VPLinear(), 1500
    denoiser, times = oracles.oracle_a(schedule), oracles.log_uniform(schedule, 150)
    start = oracles.starts(schedule, num)
    x = start[torch.randperm(num, generator=torch.Generator().manual_seed(0))]
    end = measure.last(denoiser, solver, x, times, generated(1))
    u = denoiser.cdf(end, times[-1]).numpy()
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def generated(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return lambda step: lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


@those(lambda s: s.of_ratio)
def test_sigma_over_alpha_alone_decides(solver: Solver[Any]) -> None:
    assert measure.invariance(solver) < 1e-12


@every_solver
def test_one_point_is_returned_exactly(solver: Solver[Any]) -> None:
    assert measure.ends(solver) < 1e-12


@every_solver
def test_the_empirical_denoiser_lands_on_its_points(solver: Solver[Any]) -> None:
    points = torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    denoiser = EmpiricalDenoiser(GaussianDiffusion(Cosine()), points)
    x = sample(denoiser, solver, (2,), Karras()(Cosine(), 40), seeds=range(30), dtype=F64)
    nearest, which = torch.cdist(x, points).min(1)
    assert nearest.max() < 1e-3
    assert len(set(which.tolist())) >= 4  # and not all on one


class Small(torch.nn.Module):
    """A network with bounded output that is not smooth in anything."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: Tensor, c_noise: Tensor, cond: object) -> Tensor:
        assert c_noise.shape == (len(x),)
        assert x.device.type == "meta" or (x.isfinite().all() and c_noise.isfinite().all())
        return torch.sin(3 * x + c_noise[:, None]).repeat(1, self.out)


@every_solver
@every_schedule
def test_from_one_to_zero_without_nan(solver: Solver[Any], schedule: Schedule) -> None:
    for cls in names("langevin.diffusion.parametrization", Parametrization).values():
        wrapped = cls is LearnedVariance
        for base in names("langevin.diffusion.parametrization", Parametrization).values() if wrapped else (cls,):
            if wrapped and base is LearnedVariance:
                continue
            parametrization = LearnedVariance(base()) if wrapped else base()
            denoiser = NetworkDenoiser(Small(2 if wrapped else 1), GaussianDiffusion(schedule), parametrization)
            for num_steps in (1,) if solver.adaptive else (1, 2, 5):
                x = sample(denoiser, solver, (4,), Uniform()(schedule, num_steps), seeds=range(2))
                assert x.dtype == torch.float32 and x.isfinite().all(), (parametrization, num_steps)


@every_solver
@pytest.mark.parametrize("grid", [cls() for cls in names("langevin.solvers.grids", Grid).values()])
def test_every_grid_is_finite_on_every_schedule(solver: Solver[Any], grid: Grid) -> None:
    for schedule in (VE(), VPLinear(), Flow(), Cosine(), SCHEDULES["tabulated, alpha 0"]):
        denoiser = oracles.oracle_a(schedule)
        for num_steps in (1, 2, 3, 20):
            x = sample(denoiser, solver, (1,), grid(schedule, num_steps), seeds=range(4), dtype=F64)
            assert x.isfinite().all(), (schedule, num_steps)
            if num_steps in (
                1,
                20,
            ):  # at the end each is a mean of data: between the components, give or take their spread
                assert x.abs().max() < 8, (schedule, num_steps)


def steps_of(solver: Solver[Any], schedule: Schedule, seeds: range, **more: Any) -> Any:
    denoiser, noise = oracles.oracle_a(schedule), rng.keyed(seeds)
    x = denoiser.process.prior((len(seeds), 1), noise(0), dtype=F64)
    given = {"noise": noise} if solver.stochastic else {}
    return trajectory(denoiser, solver, x, Karras()(schedule, 8), **given, **more)


@every_solver
@pytest.mark.parametrize("schedule", [Flow(), VPLinear()])
def test_two_trajectories_do_not_meet(solver: Solver[Any], schedule: Schedule) -> None:
    alone = [[step.x for step in steps_of(solver, schedule, seeds)] for seeds in (range(4), range(4, 8))]
    woven = [steps_of(solver, schedule, range(4)), steps_of(solver, schedule, range(4, 8))]
    for i in range(8):
        for k in (0, 1):
            assert torch.equal(next(woven[k]).x, alone[k][i])


@every_solver
@pytest.mark.parametrize("schedule", [Flow(), VPLinear()])
def test_resumed_is_uninterrupted(solver: Solver[Any], schedule: Schedule) -> None:
    whole = list(steps_of(solver, schedule, range(4)))
    for cut in (1, 3, 7, 8):
        *_, last = islice(steps_of(solver, schedule, range(4)), cut)
        rest = list(steps_of(solver, schedule, range(4), resume=last))
        assert len(rest) == 8 - cut
        for a, b in zip(rest, whole[cut:], strict=True):
            assert a.index == b.index and a.t == b.t and torch.equal(a.x, b.x)


@every_solver
def test_a_step_changes_nothing_behind_the_caller(solver: Solver[Any]) -> None:
    kept = [(step.x, step.x.clone()) for step in steps_of(solver, Flow(), range(4))]
    assert all(torch.equal(x, then) for x, then in kept)


@every_solver
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_batch_is_its_samples(solver: Solver[Any], dtype: torch.dtype) -> None:
    denoiser, times = oracles.oracle_a(Flow()), Uniform()(Flow(), 6)

    def draw(seeds: list[int]) -> Tensor:
        return sample(denoiser, solver, (1,), times, seeds=seeds, dtype=dtype)

    whole = draw(list(range(8)))
    assert torch.equal(whole, torch.cat([draw([0, 1, 2, 3]), draw([4, 5, 6, 7])]))
    assert torch.equal(whole[[6, 1]], draw([6, 1]))


@every_solver
def test_single_precision_is_enough(solver: Solver[Any]) -> None:
    for schedule in (VE(), VPLinear(), Flow(), SCHEDULES["tabulated, alpha 0"]):
        denoiser, times, x = oracles.oracle_a(schedule), Karras()(schedule, 15), oracles.starts(schedule, 20).float()

        def noise(step: int, dtype: torch.dtype) -> rng.Noise:  # the same numbers in both
            return lambda like: rng.keyed(range(20))(step)(like.float()).to(dtype)

        single, double = (
            measure.last(denoiser, solver, x.to(dtype), times, partial(noise, dtype=dtype))
            for dtype in (torch.float32, F64)
        )
        assert (single.double() - double).abs().max() < 1e-4


@every_solver
def test_threads_are_as_good_as_one(solver: Solver[Any]) -> None:
    denoiser, times = oracles.oracle_a(VPLinear()), Karras()(VPLinear(), 6)

    def draw(k: int) -> Tensor:
        return sample(denoiser, solver, (1,), times, seeds=range(4 * k, 4 * k + 4), dtype=F64)

    serial = [draw(k) for k in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert all(torch.equal(a, b) for a, b in zip(pool.map(draw, range(16)), serial, strict=True))


@never_waiting
@pytest.mark.parametrize("parametrization", [V(), Eps(), LearnedVariance(Eps())])
def test_no_step_waits_for_the_device(solver: Solver[Any], parametrization: Parametrization) -> None:
    """On the meta device there are no numbers: whatever reads one back fails."""
    network = Small(2 if isinstance(parametrization, LearnedVariance) else 1)
    for schedule in SCHEDULES.values():
        denoiser = NetworkDenoiser(network, GaussianDiffusion(schedule), parametrization)
        x = torch.zeros(2, 4, device="meta")
        for step in trajectory(denoiser, solver, x, Uniform()(schedule, 4), noise=lambda step: torch.zeros_like):
            assert step.x.device.type == "meta" and step.x.dtype == torch.float32


@deterministic
def test_who_is_not_stochastic_draws_nothing(solver: Solver[Any]) -> None:
    def forbidden(step: int) -> rng.Noise:
        def draw(like: Tensor) -> Tensor:
            raise AssertionError("a deterministic solver drew noise")

        return draw

    x = oracles.starts(VE(), 4)
    for _ in trajectory(oracles.oracle_a(VE()), solver, x, oracles.log_uniform(VE(), 5), noise=forbidden):
        pass


@stochastic
def test_who_is_stochastic_says_that_it_needs_noise(solver: Solver[Any]) -> None:
    x = oracles.starts(VE(), 4)
    with pytest.raises(ValueError, match="draws noise"):
        list(trajectory(oracles.oracle_a(VE()), solver, x, oracles.log_uniform(VE(), 5)))
    ends = [
        measure.last(oracles.oracle_a(VE()), solver, x, oracles.log_uniform(VE(), 5), rng.keyed(k))
        for k in ([0] * 4, [1] * 4)
    ]
    assert not torch.equal(*ends)


@counted
def test_it_calls_the_denoiser_as_often_as_it_says(solver: Solver[Any]) -> None:
    denoiser, calls = oracles.oracle_a(VE()), []
    denoiser.register_forward_pre_hook(lambda *args: calls.append(1))
    measure.last(denoiser, solver, oracles.starts(VE(), 4), oracles.log_uniform(VE(), 12))
    start_up = 3 * max(solver.order, 1)  # a multistep method may start with another
    assert 12 * solver.evaluations <= len(calls) <= 12 * solver.evaluations + start_up


@every_solver
def test_a_recipe_makes_it_again(solver: Solver[Any]) -> None:
    assert build(json.loads(json.dumps(describe(solver))), Solver) == solver


@every_solver
def test_conditions_reach_every_call(solver: Solver[Any]) -> None:
    """With the first component's label, samples are the component's alone."""
    schedule = VPLinear()
    denoiser, times = oracles.oracle_a(schedule), oracles.log_uniform(schedule, 60, 50.0, 0.02)
    x = oracles.starts(schedule, 100) * 2.5 / (schedule.sigma(oracles.log_uniform(schedule, 1)[0]))
    cond, noise = {"label": torch.zeros(100, dtype=torch.int64)}, rng.keyed(range(100))
    *_, step = trajectory(
        denoiser, solver, x / 2.5, times, cond=cond, **({"noise": noise} if solver.stochastic else {})
    )
    assert abs(step.x.mean().item() + 1) < 4 * 0.25 / math.sqrt(100)
    assert step.x.max() < 0.1

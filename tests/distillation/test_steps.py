"""Tuned steps on denoisers in closed form, judged on starts that tuning has not seen."""

import math

import pytest
import torch

from langevin import rng
from langevin.diffusion import GaussianDiffusion
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.distillation.steps import _gaps, _Problem, _times, tune_steps
from langevin.exact import GaussianDenoiser, MixtureDenoiser
from langevin.solvers import trajectory
from langevin.solvers.default import default
from langevin.solvers.dpmpp import DPMpp
from langevin.solvers.grids import Karras, LogSNR, Scales, Uniform

F64 = torch.float64


def mixture(schedule) -> MixtureDenoiser:
    means = torch.tensor([[-1.0, -0.5], [0.8, 1.0], [0.3, -0.9]], dtype=F64)
    return MixtureDenoiser(GaussianDiffusion(schedule), torch.ones(3), means, torch.tensor([0.1, 0.2, 0.3]))


def starts(denoiser, num: int, first: int = 0) -> torch.Tensor:
    noise = rng.keyed(range(first, first + num))(0)
    return denoiser.process.prior((num, *denoiser.means.shape[1:]), noise, dtype=F64)


def distance(denoiser, solver, grid, x, num: int, cond=None) -> float:
    schedule = denoiser.process.schedule
    *_, fine = trajectory(denoiser, DPMpp(), x, LogSNR(1e-4, 1e9)(schedule, 1000), cond=cond)
    *_, step = trajectory(denoiser, solver, x, grid(schedule, num), cond=cond)
    return (step.x - fine.x).norm(dim=1).mean().item()


@pytest.mark.parametrize("schedule", [VPLinear(), VE(), Flow()])
def test_tuned_steps_end_nearer_on_other_starts(schedule) -> None:
    denoiser = mixture(schedule)
    found = tune_steps(denoiser, starts(denoiser, 200), 6)
    x = starts(denoiser, 300, 1000)
    tuned = distance(denoiser, found.solver, found.grid, x, 6)
    assert found.gained and found.error < found.built_in_error
    assert tuned < 0.85 * distance(denoiser, *default(6), x, 6)
    assert tuned < 0.35 * distance(denoiser, DPMpp(), Karras(5.0, 0.02), x, 6)


def test_the_condition_belongs_to_its_start() -> None:
    """One component alone is Gaussian: its starts, tuned with their labels, end where their own component is."""
    denoiser = mixture(VPLinear())
    x, labels = starts(denoiser, 120), torch.arange(120) % 3
    found = tune_steps(denoiser, x, 4, cond={"label": labels}, batch=32)
    cond = {"label": labels}
    assert distance(denoiser, found.solver, found.grid, x, 4, cond) < distance(denoiser, *default(4), x, 4, cond)
    times = found.grid(VPLinear(), 4)
    *_, step = trajectory(denoiser, found.solver, x, times, cond=cond)
    assert ((step.x - denoiser.means[labels]).norm(dim=1) < 1.5).all()


def test_what_is_in_use_stays_where_nothing_is_nearer() -> None:
    denoiser = mixture(VPLinear())
    x = starts(denoiser, 40)
    first = tune_steps(denoiser, x, 3, rounds=3)
    again = tune_steps(denoiser, x, 3, rounds=1, kept=(first.solver, first.grid))
    assert again.error <= first.error * (1 + 1e-12) and again.default_error == pytest.approx(first.error)


def test_one_step_has_nothing_to_tune() -> None:
    denoiser = mixture(VPLinear())
    found = tune_steps(denoiser, starts(denoiser, 20), 1)
    assert not found.gained and found.grid(VPLinear(), 1).tolist() == [1, 0]


@pytest.mark.parametrize("schedule", [VPLinear(), VE(), Flow()])
@pytest.mark.parametrize("grid", [Scales(), Karras(), Uniform()])
def test_gaps_and_times_are_each_other(schedule, grid) -> None:
    denoiser = GaussianDenoiser(GaussianDiffusion(schedule), torch.zeros(1), torch.ones(1))
    problem = _Problem(denoiser, torch.zeros(4, 1, dtype=F64), None, 8, 64)
    times = grid(schedule, 9)
    gaps = _gaps(problem, times)
    assert gaps.sum().item() == pytest.approx(1)
    torch.testing.assert_close(_times(problem, gaps), times, rtol=1e-9, atol=1e-12)


def test_distances_are_over_the_spread_of_the_fine_solution() -> None:
    """DDIM in one step says E[x0] = 0 of centred Gaussian data: it is away by the whole spread."""
    denoiser = GaussianDenoiser(GaussianDiffusion(Flow()), torch.zeros(2), torch.full((2,), 0.3))
    x = denoiser.process.prior((4000, 2), rng.keyed(range(4000))(0), dtype=F64)
    found = tune_steps(denoiser, x, 1, fine=40, batch=4000)
    assert found.error == pytest.approx(math.sqrt(math.pi / 4), rel=0.02)  # E|z| / sqrt(E|z|^2) in two dimensions


@pytest.mark.parametrize(("num", "steps"), [(3, 5), (10, 0), (10, 100)])
def test_impossible_tunings_are_refused(num: int, steps: int) -> None:
    denoiser = mixture(Flow())
    with pytest.raises(ValueError, match="tuning needs"):
        tune_steps(denoiser, starts(denoiser, num), steps)

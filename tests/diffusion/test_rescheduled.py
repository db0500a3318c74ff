"""A denoiser moved to another schedule is the same denoiser."""

import pytest
import torch

from langevin.diffusion import Rescheduled
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.exact import oracles
from langevin.recipes import solver_oracles as measure

F64 = torch.float64
SCHEDULES = oracles.schedules()
SOLVERS = {name: solver for name, solver in measure.registered().items() if solver.of_ratio}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_it_is_the_denoiser_that_was_made_on_the_new_schedule(schedule):
    moved, made = Rescheduled(oracles.oracle_a(VPLinear()), schedule), oracles.oracle_a(schedule)
    ratios = torch.logspace(1, -4, 30, dtype=F64)
    t = schedule.inverse(-2 * ratios.log()).clamp(0, 1)
    x = (schedule.alpha(t) * torch.linspace(-2, 2, 30, dtype=F64) + schedule.sigma(t))[:, None]
    for a, b in zip((moved(x, t).mean, moved(x, t).var), (made(x, t).mean, made(x, t).var), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    there_and_back = Rescheduled(Rescheduled(made, VPLinear()), schedule)
    torch.testing.assert_close(there_and_back(x, t).mean, made(x, t).mean, rtol=1e-9, atol=1e-10)
    for end in (0.0, 1.0):
        time = torch.tensor(end, dtype=F64)
        x_t = x if end == 0 else x * schedule.sigma(time)
        assert moved(x_t, time).mean.isfinite().all()
        if end == 0:
            torch.testing.assert_close(moved(x, time).mean, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_trained_on_vp_and_sampled_as_flow_or_ve_is_the_same(solver):
    trained = oracles.oracle_a(VPLinear())
    ends = []
    for schedule in (VPLinear(), Flow(), VE()):
        times = oracles.log_uniform(schedule, 24)
        x = oracles.starts(VE(), 20) * schedule.alpha(times[0])
        denoiser = trained if schedule == VPLinear() else Rescheduled(trained, schedule)
        ends.append(measure.last(denoiser, solver, x, times) / schedule.alpha(times[-1]))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-11)

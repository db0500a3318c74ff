"""The one loop: what it refuses, what it yields, whose numbers it draws."""

import pytest
import torch

from langevin import rng
from langevin.diffusion.schedules import VE, Flow
from langevin.exact import oracles
from langevin.solvers import sample, trajectory
from langevin.solvers.ancestral import Ancestral
from langevin.solvers.ddim import DDIM
from langevin.solvers.grids import Karras


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ([0.5], "at least two"),
        ([0.5, 0.2, 0.4], "decreasing"),
        ([0.5, 0.5, 0.1], "decreasing"),
        ([1.1, 0.5], "in \\[0, 1\\]"),
        ([0.5, -0.1], "in \\[0, 1\\]"),
        ([0.5, float("nan")], "decreasing"),
        ([[0.5, 0.1]], "list"),
    ],
)
def test_times_that_cannot_be(times: list, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        next(trajectory(oracles.oracle_a(VE()), DDIM(), torch.zeros(1, 1), torch.tensor(times)))


def test_inversion_draws_nothing() -> None:
    with pytest.raises(ValueError, match="deterministic"):
        next(trajectory(oracles.oracle_a(VE()), Ancestral(), torch.zeros(1, 1), torch.tensor([0.2, 0.5])))


def test_steps_are_numbered_and_timed() -> None:
    times = [0.9, 0.5, 0.2]
    steps = list(
        trajectory(oracles.oracle_a(Flow()), DDIM(), torch.ones(2, 1), torch.tensor(times, dtype=torch.float64))
    )
    assert [(s.index, s.t) for s in steps] == [(1, 0.5), (2, 0.2)]


def test_the_first_noise_is_keyed_and_steps_follow_the_path() -> None:
    schedule = VE()
    denoiser, times = oracles.oracle_a(schedule), Karras()(schedule, 3)
    found = sample(denoiser, Ancestral(), (1,), times, seeds=[11, 5], dtype=torch.float64)
    lams = (0.5 * schedule.log_snr(times)).tolist()
    by_hand = []
    for seed in (11, 5):
        x = schedule.sigma(times[0]) * torch.from_numpy(rng.generator(seed, 0).standard_normal((1, 1)))
        for i in range(3):
            step = denoiser.process.reverse(denoiser(x, times[i]), x, times[i], times[i + 1])
            z = rng.brownian([seed], lams)(i + 1)(x)
            x = step.mean + (step.var.sqrt() * z if i < 2 else 0)
        by_hand.append(x)
    torch.testing.assert_close(found, torch.cat(by_hand), rtol=1e-13, atol=1e-13)


def test_no_graph_is_kept_and_the_callers_mode_is_left_alone() -> None:
    x = torch.ones(2, 1, requires_grad=True)
    for step in trajectory(oracles.oracle_a(Flow()), DDIM(), x, torch.tensor([0.9, 0.5, 0.2])):
        assert not step.x.requires_grad
        assert torch.is_grad_enabled()

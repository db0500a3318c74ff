"""Brownian paths: independent unit increments on any times, one path a seed on all of them, and what that buys."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from langevin import rng
from langevin.diffusion import Denoiser, Gaussian, Schedule
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.exact import oracles
from langevin.recipes.solver_oracles import last
from langevin.solvers import Solver, sample
from langevin.solvers.ancestral import Ancestral
from langevin.solvers.base import levels
from langevin.solvers.ddim import DDIM
from langevin.solvers.edm import EDM
from langevin.solvers.grids import Karras

F64 = torch.float64
INF = math.inf


def moves(seeds: range, lams: list[float], width: int = 40, dtype: torch.dtype = F64) -> Tensor:
    """(len(lams) - 1, len(seeds), width): the first draw of each step."""
    noise = rng.brownian(seeds, lams)
    return torch.stack([noise(i)(torch.empty(len(seeds), width, dtype=dtype)) for i in range(1, len(lams))])


@pytest.mark.parametrize(
    "lams",
    [
        [-3.0, -1.0, 0.2, 0.5, 4.0],
        [-INF, -3.0, -2.9, 5.0, INF],
        [0.0, 1e-4, 3e-4, 1e-3, 2e-3, 2e-3 + 1e-9],  # inside one cell of the path
        [-1e3, -20.0, -15.0, 0.0, 16.0, 30.0, 1e3],  # beyond its ends
        [0.0, 0.0, 1.0, 1.0],  # a time twice
    ],
)
def test_increments_are_independent_and_standard_normal(lams: list[float]) -> None:
    z = moves(range(600), lams).flatten(1)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    off = torch.corrcoef(z) - torch.eye(len(z), dtype=F64)
    assert off.abs().max() < 4.5 / math.sqrt(z.shape[1])
    sums = z.sum(0) / math.sqrt(len(z))  # jointly, not in pairs alone
    assert stats.kstest(sums.numpy(), "norm").pvalue > 1e-3
    assert (
        stats.kstest((z * torch.tensor([1.0, -1.0]).repeat(len(z))[: len(z), None]).sum(0) / math.sqrt(len(z)), "norm")[
            1
        ]
        > 1e-3
    )


def test_other_times_see_the_same_path() -> None:
    """B over [a, c] is B over [a, b] and B over [b, c], whatever other times there are."""
    fine = [-2.5 + 0.05 * i for i in range(111)]
    for every in (2, 5, 11, 55):
        coarse = fine[::every]
        parts, whole = moves(range(3), fine), moves(range(3), coarse)
        clock = torch.tensor(fine, dtype=F64).mul(2).exp()
        parts = parts * clock.diff().sqrt()[:, None, None]
        whole = whole * clock[::every].diff().sqrt()[:, None, None]
        summed = parts.reshape(len(whole), every, *parts.shape[1:]).sum(1)
        torch.testing.assert_close(
            whole / clock[every::every, None, None].sqrt(),
            summed / clock[every::every, None, None].sqrt(),
            rtol=0,
            atol=1e-11,
        )


def test_times_in_one_cell_move_the_path_by_no_more_than_the_cell() -> None:
    cell = 24 / 2**13
    alone = moves(range(200), [0.0, 1.0], 200)
    crowded = moves(range(200), [-1.0, -2e-4, -1e-4, 0.0, 1.0], 200)[-1:]
    off = (alone - crowded).square().mean().sqrt().item()
    assert 0 < off < math.sqrt(cell / 2)


def test_a_sample_does_not_depend_on_its_batch_nor_on_the_order_of_asking() -> None:
    lams, like = [-1.0, 0.0, 0.5, 0.5001, 2.0], torch.empty(8, 3, 5)
    whole = [rng.brownian(range(8), lams)(i)(like) for i in range(1, 5)]
    noise = rng.brownian([6, 1], lams)
    for i in (3, 1, 4, 2):
        assert torch.equal(noise(i)(like[:2]), whole[i - 1][[6, 1]])


def test_further_draws_of_a_step_are_the_keyed_ones() -> None:
    lams, like = [-1.0, 0.0, 1.0], torch.empty(2, 500, dtype=F64)
    noise = rng.brownian([3, 4], lams)(2)
    first, second, third = noise(like), noise(like), noise(like)
    keyed = rng.keyed([3, 4])(2)
    assert torch.equal(second, keyed(like)) and torch.equal(third, keyed(like))
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 4.5 / math.sqrt(1000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_precision_is_the_same_kind_of_path(dtype: torch.dtype) -> None:
    z = moves(range(50), [-9.0, -8.999, 0.0, 13.0, 13.001], 400, dtype)
    assert z.dtype == dtype
    for row in z.float().flatten(1):
        assert stats.kstest(row.numpy(), "norm").pvalue > 1e-3
    shapes = rng.brownian([1], [0.0, 1.0, 2.0])
    assert shapes(1)(torch.empty(1, 4)).shape == (1, 4)
    assert shapes(2)(torch.empty(1, 2, 2, dtype=F64)).dtype == F64  # another shape starts over


class Wide(Denoiser):
    """Samples of many independent entries, each of oracle A: one path a sample, drawn at once."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.each = oracles.oracle_a(schedule)
        self.process = self.each.process

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
        q = self.each(x_t.reshape(-1, 1), t)
        return Gaussian(q.mean.reshape(x_t.shape), q.var.reshape(x_t.shape))


def strong_errors(solver: Solver, grid_of) -> dict[int, float]:
    """Mean distance at the end, on one path, from 4096 steps."""
    schedule = VE()
    x = oracles.starts(schedule, 200).T

    def end(num_steps: int) -> Tensor:
        times = oracles.log_uniform(schedule, num_steps)
        lams = [here.lam for here in levels(schedule, times)]
        return last(Wide(schedule), solver, x, times, grid_of([7], lams))

    exact = end(4096)
    return {n: (end(n) - exact).abs().mean().item() for n in (64, 128, 256, 512)}


def test_strong_order_on_a_shared_path() -> None:
    """The reverse diffusion converges path by path: order 1, as its noise is additive."""
    errors = strong_errors(DDIM(1.0), rng.brownian)
    assert abs(oracles.slope(errors.__getitem__, tuple(errors)) - 1.06) < 0.15, errors
    assert errors[64] < 0.05
    independent = strong_errors(DDIM(1.0), lambda seeds, lams: rng.keyed(seeds))
    assert independent[512] > 20 * errors[512]


@pytest.mark.parametrize("solver", [DDIM(1.0), Ancestral(), EDM(10.0)], ids=["ddim, eta 1", "ancestral", "edm"])
@pytest.mark.parametrize("schedule", [VPLinear(), Flow()])
def test_a_seed_gives_the_same_sample_with_more_steps(solver: Solver, schedule: Schedule) -> None:
    denoiser = Wide(schedule)
    few, many = (sample(denoiser, solver, (300,), Karras()(schedule, n), seeds=[3], dtype=F64) for n in (50, 400))
    apart = (few - many).abs().median()
    noise = rng.keyed([3])
    start = denoiser.process.prior((1, 300), noise(0), dtype=F64)
    few, many = (last(denoiser, solver, start, Karras()(schedule, n), noise) for n in (50, 400))
    assert apart < 0.2 * (few - many).abs().median()

"""Grids against published tables and their own laws, on every schedule."""

import itertools
import math

import numpy as np
import pytest
import torch

from langevin.diffusion.schedules import VE, Cosine, Shifted, Tabulated, VPLinear, zero_terminal
from langevin.exact.oracles import schedules
from langevin.registry import names
from langevin.solvers.grids import Grid, Karras, LogSNR, Trailing, Uniform

GRIDS = [cls() for cls in names("langevin.solvers.grids", Grid).values()]
EVERY = schedules()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY)
def test_every_grid_falls_from_one_to_zero(grid: Grid, schedule) -> None:
    for num_steps in (1, 2, 3, 7, 50):
        times = grid(schedule, num_steps)
        assert times.shape == (num_steps + 1,) and times.dtype == torch.float64
        assert times[0] == 1 and times[-1] == 0 and bool((times.diff() < 0).all())


@pytest.mark.parametrize("schedule", [VE(), Cosine(), VPLinear(), zero_terminal(Tabulated.linear())])
def test_karras_is_equation_5(schedule) -> None:
    times = Karras()(schedule, 18)[:-1]
    ratio = torch.exp(-0.5 * schedule.log_snr(times)).numpy()
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(ratio[1:], expected[1:], rtol=1e-9)
    assert ratio[0] == pytest.approx(
        80 if isinstance(schedule, VE) else math.exp(-0.5 * schedule.log_snr(torch.ones(())).item())
    )
    np.testing.assert_allclose(expected[:3], [80, 57.586, 40.786], rtol=1e-4)


@pytest.mark.parametrize("schedule", [VE(), VPLinear()])
def test_log_snr_has_equal_steps(schedule) -> None:
    lam = 0.5 * schedule.log_snr(LogSNR()(schedule, 20)[1:-1])
    steps = lam.diff()
    torch.testing.assert_close(steps, torch.full_like(steps, math.log(80 / 0.002) / 19), rtol=1e-9, atol=0)
    assert abs(lam[-1].item() + math.log(0.002)) < 1e-9


def test_a_short_schedule_bounds_the_grid() -> None:
    table = Tabulated.scaled_linear()  # ends at 14.6
    for grid in (Karras(), LogSNR()):
        ratio = torch.exp(-0.5 * table.log_snr(grid(table, 10)[:-1]))
        assert abs(ratio[0].item() - 14.614641) < 1e-5 and ratio[-1].item() == pytest.approx(0.002)


@pytest.mark.parametrize("num_steps", [1, 3, 7, 10, 20, 50, 333, 999, 1000])
def test_trailing_visits_the_entries_of_the_table(num_steps: int) -> None:
    """Lin et al. 2024: round(arange(T, 0, -T / N)) - 1 are the entries."""
    expected = np.round(np.arange(1000, 0, -1000 / num_steps))[:num_steps]
    for schedule in (Tabulated.linear(), Shifted(Tabulated.linear(), 2.0)):
        times = Trailing()(schedule, num_steps)
        np.testing.assert_array_equal(np.round(times[:-1].numpy() * 1000, 9), expected)
    with pytest.raises(ValueError, match="do not fit"):
        Trailing()(Tabulated.linear(), 1001)


def test_trailing_never_visits_an_entry_twice() -> None:
    for T, num_steps in itertools.product((1, 2, 3, 5, 8, 13), range(1, 14)):
        if num_steps <= T:
            assert bool((Trailing()(Tabulated((0.1,) * T), num_steps).diff() < 0).all())


def test_uniform() -> None:
    torch.testing.assert_close(Uniform()(VE(), 4), torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64))

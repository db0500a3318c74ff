"""Grids against published tables and their own laws, on every schedule."""

import itertools
import math

import numpy as np
import pytest
import torch

from langevin.diffusion.schedules import VE, Cosine, Flow, Shifted, Tabulated, VPLinear, zero_terminal
from langevin.exact.oracles import schedules
from langevin.registry import build, describe, names
from langevin.solvers.grids import (
    Beta,
    FlowShift,
    Grid,
    Karras,
    Leading,
    Linspace,
    LogSNR,
    Polyexponential,
    Scales,
    Times,
    Trailing,
    Uniform,
)

GRIDS = [cls() for cls in names("langevin.solvers.grids", Grid).values()]
EVERY = schedules()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY)
def test_every_grid_falls_from_one_to_zero(grid: Grid, schedule) -> None:
    for num_steps in (1, 2, 3, 7, 50):
        times = grid(schedule, num_steps)
        assert times.shape == (num_steps + 1,) and times.dtype == torch.float64
        assert times[0] == 1 and times[-1] == 0 and bool((times.diff() < 0).all())
    assert build(describe(grid), Grid) == grid


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


@pytest.mark.parametrize("num_steps", [1, 2, 7, 20, 50, 333, 1000])
def test_linspace_visits_the_entries_of_the_table(num_steps: int) -> None:
    """Lin et al. 2024, table 2: round(linspace(1, T, N)), which for one step is taken to be the last."""
    times = Linspace()(Tabulated.linear(), num_steps)
    expected = np.round(np.linspace(0, 999, num_steps))[::-1] + 1 if num_steps > 1 else np.array([1000.0])
    np.testing.assert_allclose(times[:-1].numpy() * 1000, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="do not fit"):
        Linspace()(Tabulated.linear(), 1001)


@pytest.mark.parametrize("offset", [0, 1])
def test_leading_visits_the_entries_of_the_table(offset: int) -> None:
    """Lin et al. 2024, table 2: arange(1, T + 1, floor(T / N)), but for its first, which is at t = 1 here."""
    for num_steps in (1, 2, 7, 20, 50, 333, 1000):
        times = Leading(offset)(Tabulated.linear(), num_steps)
        expected = (np.arange(num_steps) * (1000 // num_steps)).round()[::-1] + 1 + offset
        np.testing.assert_allclose(times[1:-1].numpy() * 1000, expected[1:], rtol=1e-12)
        assert times[0] == 1
    with pytest.raises(ValueError, match="offset"):
        Leading(600)(Tabulated.linear(), 2)


def test_polyexponential_is_the_exponential_of_powers() -> None:
    times = Polyexponential(2.0)(VE(), 11)
    ratio = torch.exp(-0.5 * VE().log_snr(times[1:-1])).numpy()
    expected = np.exp(np.linspace(1, 0, 11) ** 2 * (math.log(80) - math.log(0.002)) + math.log(0.002))
    np.testing.assert_allclose(ratio, expected[1:], rtol=1e-9)
    torch.testing.assert_close(Polyexponential(1.0)(VE(), 11), LogSNR()(VE(), 11), rtol=0, atol=1e-12)


def test_beta_has_equal_shares_of_its_law() -> None:
    """Beta(1, 1) is uniform, Beta(.5, .5) the law of sin^2, Beta(2, 1) that of a square root."""
    for grid, quantile in (
        (Beta(1.0, 1.0), lambda u: u),
        (Beta(0.5, 0.5), lambda u: torch.sin(math.pi / 2 * u) ** 2),
        (Beta(2.0, 1.0), torch.sqrt),
    ):
        torch.testing.assert_close(grid(VE(), 9), quantile(Uniform()(VE(), 9)), rtol=0, atol=1e-12)


def test_flow_shift_multiplies_the_ratio_of_the_flow_schedule() -> None:
    plain, shifted = Uniform()(Flow(), 12)[1:-1], FlowShift(3.0)(Flow(), 12)[1:-1]
    torch.testing.assert_close(shifted / (1 - shifted), 3 * plain / (1 - plain), rtol=1e-12, atol=0)
    assert FlowShift.of_tokens(256).shift == pytest.approx(math.exp(0.5))
    assert FlowShift.of_tokens(4096).shift == pytest.approx(math.exp(1.15))


def test_times_are_taken_as_they_are_and_read_between() -> None:
    mine = (1.0, 0.7, 0.1, 0.0)
    assert Times(mine)(VE(), 3).tolist() == list(mine)
    torch.testing.assert_close(Times(mine)(VE(), 6)[1::2], torch.tensor([0.85, 0.4, 0.05], dtype=torch.float64))
    torch.testing.assert_close(Times()(VE(), 4), Uniform()(VE(), 4))


@pytest.mark.parametrize("schedule", [VE(), Flow(), Tabulated.linear(), zero_terminal(Tabulated.linear())])
def test_scales_has_even_steps_of_psi(schedule) -> None:
    """Without crowding psi falls evenly from its value at t = 1, log(high) where alpha is 0, to log(low)."""
    grid = Scales(0.1, 5.0, 0.0)
    times = grid(schedule, 8)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    psi = torch.log((sigma + 0.1 * alpha) / (alpha + sigma / 5))
    torch.testing.assert_close(psi.diff(), (psi[-1] - psi[0]).expand(8) / 8, rtol=1e-6, atol=0)
    assert psi[-1].item() == pytest.approx(math.log(0.1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Times((1.0,)),
        lambda: Times((1.0, 0.5, 0.6, 0.0)),
        lambda: Times((0.9, 0.0)),
        lambda: FlowShift(0.0),
        lambda: Beta(0.0),
        lambda: Scales(2.0, 1.0),
        lambda: Scales(crowd=1.0),
    ],
)
def test_impossible_grids_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r"must|< high"):
        make()


def test_grids_equal_k_diffusion() -> None:
    theirs = pytest.importorskip("k_diffusion.sampling")
    for ours, sigmas in (
        (Karras(), theirs.get_sigmas_karras(15, 0.002, 80.0)),
        (LogSNR(), theirs.get_sigmas_exponential(15, 0.002, 80.0)),
        (Polyexponential(3.0), theirs.get_sigmas_polyexponential(15, 0.002, 80.0, rho=3.0)),
    ):
        ratio = torch.exp(-0.5 * VE().log_snr(ours(VE(), 15)))
        torch.testing.assert_close(ratio, sigmas.double(), rtol=1e-4, atol=1e-9)


def test_grids_equal_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    table = Tabulated.linear()
    for ours, spacing in ((Trailing(), "trailing"), (Linspace(), "linspace"), (Leading(), "leading")):
        scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing)
        for num_steps in (5, 20, 50):
            scheduler.set_timesteps(num_steps)
            entries = (1000 * ours(table, num_steps)[:-1] - 1).round().int()
            first = 1 if spacing == "leading" else 0  # theirs starts below t = 1
            assert entries[first:].tolist() == scheduler.timesteps[first:].tolist()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=Uniform()(Flow(), 10)[:-1].tolist())
    torch.testing.assert_close(FlowShift(3.0)(Flow(), 10), scheduler.sigmas.double(), rtol=1e-6, atol=1e-6)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_beta_sigmas=True)
    quantiles = scheduler._convert_to_beta(torch.tensor([1.0, 0.0]), 11)  # of sigma, which is t on the flow schedule
    torch.testing.assert_close(Beta()(Flow(), 10), torch.as_tensor(quantiles).double(), rtol=1e-6, atol=1e-6)

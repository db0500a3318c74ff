"""What every schedule keeps; a new file is found by itself."""

import math

import pytest
import torch

from langevin.diffusion import Schedule
from langevin.diffusion.schedules import Shifted
from langevin.exact.oracles import schedules

F64 = torch.float64
EVERY = schedules()
EVERY |= {f"{name}, shift {k:g}": Shifted(schedule, k) for name, schedule in EVERY.items() for k in (0.4, 3.0)}


@pytest.fixture(params=EVERY.values(), ids=EVERY)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return request.param


def last_log_snr(schedule: Schedule) -> float:
    return max(schedule.log_snr(torch.ones((), dtype=F64)).item(), -2 * math.log(1e3))


def test_both_ends(schedule: Schedule) -> None:
    for size in ((), (1,), (3,), (9, 7)):  # vectorised code may round otherwise than its remainder
        start, end = torch.zeros(size, dtype=F64), torch.ones(size, dtype=F64)
        assert bool((schedule.alpha(start) == 1).all()) and bool((schedule.sigma(start) == 0).all())
        assert bool((schedule.log_snr(start) == math.inf).all())
        alpha, sigma = schedule.alpha(end), schedule.sigma(end)
        assert bool((alpha >= 0).all()) and bool((sigma > 0).all()) and bool((sigma / alpha > 5).all())
    assert schedule.inverse(torch.tensor(math.inf, dtype=F64)) == 0
    if schedule.alpha(torch.ones((), dtype=F64)) < 1e-9:  # nothing is left, not a rounding error of it
        assert schedule.alpha(torch.ones((), dtype=F64)) == 0
        assert schedule.inverse(torch.tensor(-math.inf, dtype=F64)) == 1


def test_log_snr_falls_strictly(schedule: Schedule) -> None:
    t = torch.cat([torch.logspace(-12, -3, 200, dtype=F64), torch.linspace(0.002, 1, 2000, dtype=F64)])
    assert bool((schedule.log_snr(t).diff() < 0).all())
    assert bool((schedule.alpha(t).diff() <= 0).all())


def test_inverse_to_ten_digits_and_near_zero_to_ten_of_its_own(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 1001, dtype=F64)[1:-1]
    assert (schedule.inverse(schedule.log_snr(t)) - t).abs().max() < 1e-10
    small = torch.logspace(-10, -1, 100, dtype=F64)
    assert (schedule.inverse(schedule.log_snr(small)) / small - 1).abs().max() < 1e-10
    levels = torch.linspace(2 * math.log(1e4), last_log_snr(schedule), 500, dtype=F64)
    assert (schedule.log_snr(schedule.inverse(levels)) - levels).abs().max() < 1e-9


def test_rate_is_the_derivative(schedule: Schedule) -> None:
    t = torch.tensor([0.0137, 0.2031, 0.5019, 0.8003, 0.9871], dtype=F64)  # between the nodes of the tables
    h = 1e-6
    five = (
        schedule.log_snr(t - 2 * h)
        - 8 * schedule.log_snr(t - h)
        + 8 * schedule.log_snr(t + h)
        - schedule.log_snr(t + 2 * h)
    ) / (12 * h)
    torch.testing.assert_close(schedule.log_snr_rate(t), five, rtol=1e-7, atol=0)
    with torch.inference_mode():
        assert torch.equal(schedule.log_snr_rate(t.clone()), schedule.log_snr_rate(t))
    end = schedule.log_snr_rate(torch.ones(3, dtype=F64))
    if math.isfinite(schedule.log_snr(torch.ones((), dtype=F64))):
        assert bool((end < 0).all()) and bool(end.isfinite().all())


def test_log_snr_is_the_ratio(schedule: Schedule) -> None:
    t = torch.linspace(0.001, 0.999, 200, dtype=F64)
    torch.testing.assert_close(
        schedule.log_snr(t), torch.log(schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2), rtol=1e-10, atol=1e-10
    )


def test_float32_times_are_accurate(schedule: Schedule) -> None:
    t = torch.cat([torch.logspace(-5, -2, 50), torch.linspace(0.01, 0.99, 200)])
    for f in (schedule.alpha, schedule.sigma):
        assert f(t).dtype == torch.float32
        # an error of one rounding in t, as steep as the schedule is, and a few roundings more
        exact = f(t.double())
        steep = (f(t.double() * (1 + 1e-6)) - exact).abs() / 1e-6 + exact
        assert ((f(t).double() - exact).abs() / (steep + 1e-3 * exact)).max() < 5e-6

"""What a solver is measured by. Every figure is exact: no sampling error, no reference run.

order, error     oracle A, against the closed-form map of the probability flow
law              Gaussian data: x at the end is linear in the start and in every draw of noise, so that its variance is the
                 sum of squared gains, each found by a run with one input 1 and all others 0
invariance       sigma / alpha alone decides: VE, VP and flow end at the same x / alpha
ends             data of one point are returned from t = 1 by any number of steps to t = 0, on every schedule
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from langevin import rng
from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion, Schedule
from langevin.diffusion.denoiser import Condition
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.exact import EmpiricalDenoiser, oracles
from langevin.registry import names
from langevin.solvers import Solver, trajectory
from langevin.solvers.grids import Uniform

ERRORS_AT_32 = {"ddim": 3.04e-2, "heun": 3.43e-3, "dpmpp": 1.97e-3}
"""Mean absolute error of 200 starts on oracle A in 32 steps; the tests find it again in NumPy alone."""

ANCESTRAL_RATIOS = {8: 0.354, 16: 0.554, 32: 0.731, 64: 0.851, 128: 0.922, 256: 0.960}
"""Variance of ancestral samples of N(0, .5^2) over the true one, N log-uniform steps from sigma 80 to .002, point posterior."""

KEEPERS: dict[str, Schedule] = {"ve": VE(), "vp": VPLinear(), "flow": Flow()}


def registered() -> dict[str, Solver[Any]]:
    """Every solver in the folder in each of its variants, by name."""
    found: dict[str, Solver[Any]] = {}
    for name, cls in names("langevin.solvers", Solver).items():  # type: ignore[type-abstract]
        for settings in cls.variants:
            inside = ", ".join(f"{key}={value}" for key, value in settings.items())
            found[f"{name}({inside})" if inside else name] = cls(**settings)
    return found


def last(
    denoiser: Denoiser,
    solver: Solver[Any],
    x: Tensor,
    times: Tensor,
    noise: Callable[[int], rng.Noise] | None = None,
) -> Tensor:
    """x (B, ...) at times[-1]. Sample i of a stochastic solver draws from seed i, where no noise is given."""
    given = {"noise": noise or rng.keyed(range(len(x)))} if solver.stochastic else {}
    *_, step = trajectory(denoiser, solver, x, times, **given)
    return step.x


def end_error(solver: Solver[Any], num_steps: int, schedule: Schedule | None = None) -> float:
    """Mean absolute error of x / alpha on oracle A."""
    schedule = schedule or VE()
    denoiser, x = oracles.oracle_a(schedule), oracles.starts(schedule)
    times = oracles.log_uniform(schedule, num_steps)
    exact = oracles.flow_map(denoiser, x, times[0], times[-1])
    error = (last(denoiser, solver, x, times) - exact).abs().mean() / schedule.alpha(times[-1])
    return error.item()


def order(solver: Solver[Any]) -> float:
    """Order of convergence found on oracle A, N = 64 ... 512."""
    return oracles.slope(lambda n: end_error(solver, n))


def variance_ratio(
    solver: Solver[Any], num_steps: int, schedule: Schedule | None = None, denoiser: Denoiser | None = None
) -> float:
    """Variance of the solver's samples of N(0, .5^2), smoothed to sigma = .002, over the true one; at most 4 draws a step."""
    schedule = schedule or VE()
    denoiser = denoiser or oracles.gaussian_data(schedule)
    times = oracles.log_uniform(schedule, num_steps, 80.0, 0.002)
    draws, most = 0, 4 * num_steps

    def probe(step: int) -> rng.Noise:
        def unit(like: Tensor) -> Tensor:
            nonlocal draws
            draws += 1
            out = torch.zeros_like(like)
            out[draws] = 1  # row 0 is for the start
            return out

        return unit

    x = torch.zeros(1 + most, 1, dtype=torch.float64)
    x[0] = 1
    *_, step = trajectory(denoiser, solver, x, times, noise=probe)
    gains = step.x.squeeze(1)

    def true(t: Tensor) -> Tensor:
        return 0.25 * schedule.alpha(t).square() + schedule.sigma(t).square()

    variance = gains[0].square() * true(times[0]) + gains[1:].square().sum()
    return (variance / true(times[-1])).item()


class GaussianEnd(Denoiser):
    """Answers where the probability flow from x_t ends, data N(0, .5^2): the exact consistency function."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.process: GaussianDiffusion = GaussianDiffusion(schedule)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Gaussian:
        alpha, sigma = self.process.coefficients(t, x_t)
        return Gaussian(x_t * 0.5 / (0.25 * alpha.square() + sigma.square()).sqrt())


def mapped_ratio(solver: Solver[Any], num_steps: int = 1) -> float:
    """That ratio where the model answers with the end of the flow, as consistency models do."""
    return variance_ratio(solver, num_steps, denoiser=GaussianEnd(VE()))


def law_order(solver: Solver[Any]) -> float:
    """Order in N of the error of that variance; infinite where it is nothing but rounding."""
    errors = {n: abs(variance_ratio(solver, n) - 1) for n in (64, 128, 256)}
    return oracles.slope(errors.__getitem__, tuple(errors)) if max(errors.values()) > 1e-9 else float("inf")


def invariance(solver: Solver[Any], num_steps: int = 32) -> float:
    """Largest difference of x / alpha at the end between VE, VP and flow on equal nodes of sigma / alpha."""
    ends = []
    for schedule in KEEPERS.values():
        denoiser, times = oracles.oracle_a(schedule), oracles.log_uniform(schedule, num_steps)
        x = oracles.starts(VE(), 20) * schedule.alpha(times[0])
        ends.append(last(denoiser, solver, x, times) / schedule.alpha(times[-1]))
    return max((end - ends[0]).abs().max().item() for end in ends[1:])


def ends(solver: Solver[Any]) -> float:
    """Largest distance from the only point of a data set, over all schedules, 1, 2 and 5 equal steps from t = 1 to 0."""
    point = torch.tensor([[0.3, -1.7]], dtype=torch.float64)
    worst = torch.zeros((), dtype=torch.float64)
    for schedule in oracles.schedules().values():
        denoiser = EmpiricalDenoiser(GaussianDiffusion(schedule), point)
        x = denoiser.process.prior((3, 2), rng.keyed(range(3))(0), dtype=torch.float64)
        for n in (1, 2, 5):
            far = (last(denoiser, solver, x, Uniform()(schedule, n)) - point).abs().max()
            worst = torch.maximum(worst, far)  # NaN wins
    return worst.item()

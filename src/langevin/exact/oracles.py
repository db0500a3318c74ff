"""Problems with known answers, on which solvers are measured.

Oracle A is a mixture on the line. There the probability flow moves no mass past another, so that its exact solution is the
map that keeps the quantile:  F_s(x_s) = F_t(x_t), with F the closed-form distribution functions of x_s and x_t.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from langevin.diffusion import GaussianDiffusion, Schedule
from langevin.diffusion.schedules import Shifted, Tabulated, VPLinear, ZeroTerminal, zero_terminal
from langevin.exact.gaussian import GaussianDenoiser
from langevin.exact.mixture import MixtureDenoiser
from langevin.registry import names

RATIO_MAX, RATIO_MIN = 20.0, 0.02
"""The ends of sigma / alpha between which oracle A is solved."""


def schedules() -> dict[str, Schedule]:
    """Every schedule by name, with its default settings; and the tables and wrappers that have no defaults."""
    needing = {
        "tabulated": Tabulated.linear(100, 1e-3, 0.2),
        "shifted": Shifted(VPLinear(), 3.0),
        "zero_terminal": ZeroTerminal(VPLinear()),
    }
    found = {
        name: needing[name] if name in needing else cls()
        for name, cls in names("langevin.diffusion.schedules", Schedule).items()  # type: ignore[type-abstract]
    }
    more = {"tabulated, alpha 0": zero_terminal(Tabulated.scaled_linear(50, 0.017, 0.24))}
    return found | more


def oracle_a(schedule: Schedule) -> MixtureDenoiser:
    """.3 N(-1, .25^2) + .7 N(.6, .4^2), samples of shape (1,)."""
    weights, means, stds = (torch.tensor(a, dtype=torch.float64) for a in ([0.3, 0.7], [[-1.0], [0.6]], [0.25, 0.4]))
    return MixtureDenoiser(GaussianDiffusion(schedule), weights, means, stds)


def gaussian_data(schedule: Schedule, std: float = 0.5) -> GaussianDenoiser:
    """N(0, std^2), samples of shape (1,)."""
    zero = torch.zeros(1, dtype=torch.float64)
    return GaussianDenoiser(GaussianDiffusion(schedule), zero, torch.full_like(zero, std))


def log_uniform(schedule: Schedule, num_steps: int, high: float = RATIO_MAX, low: float = RATIO_MIN) -> Tensor:
    """(num_steps + 1,) times with sigma / alpha from high down to low in equal ratios."""
    fraction = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    return schedule.inverse(-2 * (math.log(high) + fraction * math.log(low / high)))


def starts(schedule: Schedule, num: int = 200) -> Tensor:
    """(num, 1) evenly spread quantiles of N(0, sigma^2) at sigma / alpha = 20, float64."""
    t = log_uniform(schedule, 1)[0]
    u = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    x: Tensor = schedule.sigma(t) * torch.special.ndtri(u)
    return x[:, None]


def flow_map(denoiser: MixtureDenoiser, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """(B, 1) where the probability flow takes x_t (B, 1) from t to s: exact to rounding, by bisection of the quantile."""
    u = denoiser.cdf(x_t, t)
    far = torch.full_like(u, 12.0) * (1 + denoiser.process.schedule.sigma(s).item())
    low, high = -far, far
    for _ in range(100):
        middle = (low + high) / 2
        below = denoiser.cdf(middle[:, None], s) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return ((low + high) / 2)[:, None]


def slope(errors: Callable[[int], float], nums: tuple[int, ...] = (64, 128, 256, 512)) -> float:
    """Order of convergence: minus the least-squares slope of log error in log N."""
    x = torch.tensor([math.log(n) for n in nums], dtype=torch.float64)
    y = torch.tensor([math.log(max(errors(n), 1e-300)) for n in nums], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return -float((x * y).sum() / x.square().sum())

"""What guidance is measured by: Gaussian data, for which guided denoisers are affine, so that two starts tell the law at the end."""

import math

import torch

from langevin.diffusion import GaussianDiffusion, Rescheduled, Schedule
from langevin.diffusion.schedules import VE
from langevin.exact import GaussianDenoiser, oracles
from langevin.guidance import MMPS, Autoguidance, ClassifierGuidance, Matrix
from langevin.solvers import trajectory
from langevin.solvers.heun import Heun

_F64 = torch.float64


def guided_law(scale: float, std: float, std_plain: float, num_steps: int = 1000) -> tuple[float, float]:
    """(mean, std) of samples of N(1, std^2) guided away from N(0, std_plain^2), from sigma 2000 to 1e-4.

    Equal spreads: the mean is `scale`, less what the start at sigma 2000 takes, and the spread stays. Spreads .5 and 1 at scale 2: .25,
    where the tilted density has .378.
    """
    schedule = VE(sigma_max=2000.0)
    process = GaussianDiffusion(schedule)
    aim, plain = (
        GaussianDenoiser(process, torch.tensor([m], dtype=_F64), torch.tensor(s, dtype=_F64))
        for m, s in ((1.0, std), (0.0, std_plain))
    )
    ratios = torch.logspace(math.log10(2000), -4, num_steps + 1, dtype=_F64)
    x = torch.tensor([[0.0], [2000.0]], dtype=_F64)
    times = schedule.inverse(-2 * ratios.log()).clamp(0, 1)
    *_, step = trajectory(Autoguidance(aim, plain, scale), Heun(), x, times)
    low, high = step.x.flatten().tolist()
    return low, high - low


def classifier_gap(schedule: Schedule) -> float:
    """Oracle A guided by its own p(c | x_t) is the denoiser that was told c."""
    mixture, worst = oracles.oracle_a(schedule), 0.0

    def classify(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        given = [mixture.log_prob(x_t, t, {"label": torch.full((len(x_t),), k)}) for k in (0, 1)]
        return torch.stack(given, 1) + mixture.log_weights

    for t in oracles.log_uniform(schedule, 6, 10.0, 0.05):
        x = schedule.alpha(t) * torch.linspace(-2, 2, 20, dtype=_F64)[:, None]
        label = {"label": torch.arange(20) % 2}
        gap = ClassifierGuidance(mixture, classify)(x, t, label).mean - mixture(x, t, label).mean
        worst = max(worst, gap.abs().max().item())
    return worst


def measured_gap(schedule: Schedule) -> float:
    """Moment matching on N(0, [[1, .8], [.8, 1]]), the first entry measured as 1.5 with variance .01, is the exact denoiser."""
    c = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=_F64)
    prior = GaussianDenoiser(GaussianDiffusion(schedule), torch.zeros(2, dtype=_F64), covariance=c)
    exact = GaussianDenoiser(prior.process, c[0] * 1.5 / 1.01, covariance=c - torch.outer(c[0], c[0]) / 1.01)
    first, y = Matrix(torch.tensor([[1.0, 0.0]], dtype=_F64)), torch.tensor([[1.5]], dtype=_F64)
    x, worst = torch.linspace(-2, 2, 20, dtype=_F64).reshape(10, 2), 0.0
    for t in oracles.log_uniform(schedule, 6, 10.0, 0.05):
        gap = MMPS(prior, first, y, 0.1)(x, t).mean - exact(x, t).mean
        worst = max(worst, gap.abs().max().item())
    return worst


def rescheduled_gap(trained: Schedule, schedule: Schedule) -> float:
    """Oracle A on one schedule, moved to another, is oracle A there."""
    moved, made, worst = Rescheduled(oracles.oracle_a(trained), schedule), oracles.oracle_a(schedule), 0.0
    for t in oracles.log_uniform(schedule, 6, 10.0, 0.05):
        x = schedule.alpha(t) * torch.linspace(-2, 2, 20, dtype=_F64)[:, None]
        worst = max(worst, (moved(x, t).mean - made(x, t).mean).abs().max().item())
    return worst

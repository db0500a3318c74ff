"""Laws that the mathematics keeps whatever the model, each as the largest distance from it on oracle A.

Distances are absolute, in float64, of figures of about unit size.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from langevin.diffusion import GaussianDiffusion, Schedule, weights
from langevin.diffusion.likelihood import log_prob_flow, negative_elbo
from langevin.diffusion.parametrization import X0, Eps, Flow, Karras, Parametrization, Score, V
from langevin.exact.oracles import log_uniform, oracle_a

MEANINGS: dict[Parametrization, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    Eps(): lambda x0, eps, alpha, sigma: eps,
    X0(): lambda x0, eps, alpha, sigma: x0,
    V(): lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,
    Score(): lambda x0, eps, alpha, sigma: -eps / sigma,
    Flow(): lambda x0, eps, alpha, sigma: eps - x0,
    Karras(0.5): lambda x0, eps, alpha, sigma: (
        (0.25 * alpha * eps - sigma * x0) / (-0.5 * torch.sqrt(0.25 * alpha**2 + sigma**2))
    ),
}
"""What a network that predicts this would say if it knew x0 and eps."""

LOSSES: dict[Parametrization, weights.Weight] = {
    Eps(): weights.SNR(),
    X0(): weights.Uniform(),
    V(): weights.V(),
    Flow(): weights.Flow(),
    Karras(0.5): weights.Karras(0.5),
}
"""The weight of |x0 - x0_hat|^2 that is the plain squared error of this output (V: where alpha^2 + sigma^2 = 1)."""


def tweedie(schedule: Schedule) -> float:
    """E[x0 | x] = (x + sigma^2 score) / alpha and Var[x0 | x] = sigma^2 / alpha d E[x0 | x] / dx."""
    denoiser, worst = oracle_a(schedule), 0.0
    for t in log_uniform(schedule, 12, 10.0, 0.05):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x = (alpha * torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]).requires_grad_()
        (score,) = torch.autograd.grad(denoiser.log_prob(x, t).sum(), x)
        posterior = denoiser(x, t)
        assert posterior.var is not None
        (rise,) = torch.autograd.grad(posterior.mean.sum(), x)
        mean_gap = posterior.mean - (x + sigma.square() * score) / alpha
        worst = max(
            worst, mean_gap.abs().max().item(), (posterior.var - sigma.square() / alpha * rise).abs().max().item()
        )
    return worst


def _pairs(schedule: Schedule) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x0, eps (20, 3), t, alpha and sigma (20, 1)."""
    rng = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 20, 3, dtype=torch.float64, generator=rng)
    t = log_uniform(schedule, 19, 10.0, 0.05)
    return x0, eps, t, schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]


def round_trip(parametrization: Parametrization, schedule: Schedule) -> float:
    """From what the network would say, knowing x0, back to x0; and `target` says that too."""
    x0, eps, _, alpha, sigma = _pairs(schedule)
    x_t, out = alpha * x0 + sigma * eps, MEANINGS[parametrization](x0, eps, alpha, sigma)
    back = parametrization.posterior(out, x_t, alpha[:, 0], sigma[:, 0]).mean
    said = parametrization.target(x0, x_t, alpha[:, 0], sigma[:, 0])
    return max((back - x0).abs().max().item(), ((said - out) / (1 + out.abs())).abs().max().item())


def named_loss(parametrization: Parametrization, schedule: Schedule) -> float:
    """The squared error of the output is that of x0 times the weight, relative to it."""
    x0, eps, t, alpha, sigma = _pairs(schedule)
    x_t, out = alpha * x0 + sigma * eps, MEANINGS[parametrization](x0, eps, alpha, sigma)
    wrong = out + torch.linspace(-1, 1, 3, dtype=torch.float64)
    x0_hat = parametrization.posterior(wrong, x_t, alpha[:, 0], sigma[:, 0]).mean
    weighted = LOSSES[parametrization](schedule, t)[:, None] * (x0 - x0_hat).square()
    plain = (wrong - out).square()
    return ((weighted - plain).abs() / (plain + 1)).max().item()


def karras_variances(schedule: Schedule, ratio: float, sigma_data: float = 0.5) -> tuple[float, float]:
    """(weighted loss of a network that says 0, variance of its target) for data of variance sigma_data^2; both are 1."""
    t = schedule.inverse(torch.tensor(-2 * math.log(ratio), dtype=torch.float64))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    _, c_skip, c_out = Karras(sigma_data).coefficients(alpha, sigma)
    error = (1 - c_skip * alpha).square() * sigma_data**2 + c_skip.square() * sigma.square()
    loss = weights.Karras(sigma_data)(schedule, t) * error
    return loss.item(), (error / c_out.square()).item()


def chain(schedule: Schedule, num_steps: int = 40) -> float:
    """Steps q(x_t | x_s) from 0 to each t make the closed-form q(x_t | x0), in scale and in variance (relative)."""
    process, worst = GaussianDiffusion(schedule), 0.0
    scale, var = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    times = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    for s, t in pairwise(times):
        gain, fresh = process.step_coefficients(t, s)
        scale, var = gain * scale, gain.square() * var + fresh
        gap = (var / schedule.sigma(t).square() - 1).abs() + (scale - schedule.alpha(t)).abs()
        worst = max(worst, gap.item())
    return worst


def flow_likelihood(schedule: Schedule, num_steps: int = 512) -> float:
    """Probability-flow log density on [-2, 2] against the closed form, with the exact density at the noisy end."""
    denoiser = oracle_a(schedule)
    high, low = log_uniform(schedule, 1, 80.0, 0.002)
    x = torch.linspace(-2, 2, 17, dtype=torch.float64)[:, None]

    def log_density(y: Tensor, t: Tensor) -> Tensor:
        """Of y = x_t / alpha."""
        alpha = schedule.alpha(t)
        return denoiser.log_prob(alpha * y, t) + alpha.log()

    found = log_prob_flow(denoiser, x, num_steps=num_steps, ratio_max=80.0, end_log_prob=lambda y: log_density(y, high))
    return (found - log_density(x, low)).abs().max().item()


def elbo(schedule: Schedule, x0: float, *, levels: int = 400, nodes: int = 60) -> float:
    """The evidence lower bound of x0 under the exact denoiser, by quadrature (Gauss-Hermite in the noise): log p(x0)."""
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    u = ((torch.arange(levels, dtype=torch.float64) + 0.5) / levels).repeat_interleave(nodes)
    x = torch.full((levels * nodes, 1), x0, dtype=torch.float64)
    terms = negative_elbo(
        oracle_a(schedule), x, u, lambda like: z.repeat(levels)[:, None], ratio_min=1e-4, ratio_max=1e3
    )
    return -(terms * (w / w.sum()).repeat(levels)).sum().item() / levels

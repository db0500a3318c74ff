"""How probable data are under a denoiser.

Everything depends on y = x_t / alpha and r = sigma / alpha alone, so that VE, VP and flow give the same figure. With
l = log r, the probability flow is dy/dl = y - x0_hat, and along it

    log p_{l0}(y_0) = log p_{l1}(y_1) + integral from l0 to l1 of (D - trace d x0_hat / d y) dl     (Song et al. 2021, eq. 39)

The bound is  -log p(x0) <= |x0|^2 / (2 r1^2) + integral of r^-2 |x0 - x0_hat|^2 dl + D/2 log(2 pi e r0^2)
(Kingma et al. 2021, eq. 11-15, with p(x0 | y) = N(y, r0^2) at the small end), with equality for the exact denoiser.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.shapes import expand_like, sum_flat
from langevin.rng import Noise


def _log_ends(denoiser: Denoiser, ratio_min: float, ratio_max: float | None) -> tuple[float, float]:
    """The logarithms of the ends; the upper one at most where the schedule ends, unless it was chosen."""
    last = torch.exp(-0.5 * denoiser.process.schedule.log_snr(torch.ones((), dtype=torch.float64))).item()
    return math.log(ratio_min), math.log(min(80.0, last) if ratio_max is None else ratio_max)


def _clean(denoiser: Denoiser, y: Tensor, log_ratio: Tensor, cond: Condition | None) -> Tensor:
    """x0_hat at (y, l)."""
    t = denoiser.process.schedule.inverse(-2 * log_ratio)
    alpha = expand_like(denoiser.process.schedule.alpha(t), y)
    x0_hat: Tensor = denoiser(alpha * y, t, cond).mean
    return x0_hat


def _velocity_and_divergence(
    denoiser: Denoiser, y: Tensor, log_ratio: Tensor, cond: Condition | None, probe: Tensor | None
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        x0_hat = _clean(denoiser, y, log_ratio, cond)
        flat = x0_hat.flatten(1)
        if probe is None:  # exact: one backward pass an entry
            trace = torch.zeros_like(flat[:, 0])
            for d in range(flat.shape[1]):
                (row,) = torch.autograd.grad(flat[:, d].sum(), y, retain_graph=True)
                trace = trace + row.flatten(1)[:, d]
        else:  # Hutchinson: E[v^T J v]
            (row,) = torch.autograd.grad(x0_hat, y, probe)
            trace = sum_flat(row * probe)
    return (y - x0_hat).detach(), (flat.shape[1] - trace).detach()


def log_prob_flow(
    denoiser: Denoiser,
    x: Tensor,
    *,
    num_steps: int = 256,
    ratio_min: float = 0.002,
    ratio_max: float | None = None,
    end_log_prob: Callable[[Tensor], Tensor] | None = None,
    probe: Tensor | None = None,
    cond: Condition | None = None,
) -> Tensor:
    """(B,) nats: log density of the data smoothed by noise of ratio_min, at x (B, ...), by the probability flow (RK4).

    Args:
        num_steps: steps, equal in log(sigma / alpha); four evaluations each.
        ratio_min, ratio_max: the ends of sigma / alpha; the upper one is 80, or where the schedule ends if that is less.
        end_log_prob: log density (B,) of y at ratio_max; N(0, ratio_max^2) where it is not given.
        probe: Rademacher numbers shaped like x for Hutchinson's estimate of the trace; exact where it is not given.
    """
    l0, l1 = _log_ends(denoiser, ratio_min, ratio_max)
    h = (l1 - l0) / num_steps
    y, total = x, torch.zeros(len(x), dtype=x.dtype, device=x.device)

    def f(y: Tensor, at: float) -> tuple[Tensor, Tensor]:
        return _velocity_and_divergence(denoiser, y, torch.tensor(at, dtype=torch.float64), cond, probe)

    for i in range(num_steps):
        at = l0 + i * h
        k1, d1 = f(y, at)
        k2, d2 = f(y + h / 2 * k1, at + h / 2)
        k3, d3 = f(y + h / 2 * k2, at + h / 2)
        k4, d4 = f(y + h * k3, at + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    if end_log_prob is not None:
        return total + end_log_prob(y)
    size = y[0].numel()
    return total - 0.5 * sum_flat(y.square()) * math.exp(-2 * l1) - size * (l1 + 0.5 * math.log(2 * math.pi))


@torch.no_grad()
def negative_elbo(
    denoiser: Denoiser,
    x0: Tensor,
    u: Tensor,
    noise: Noise,
    *,
    ratio_min: float = 0.002,
    ratio_max: float | None = None,
    cond: Condition | None = None,
) -> Tensor:
    """(B,) nats: one unbiased draw of the negative evidence lower bound of x0 (B, ...).

    Args:
        u: (B,) numbers in (0, 1), where in log(sigma / alpha) to look; `rng.uniforms` spreads them evenly.
        ratio_min, ratio_max: as for `log_prob_flow`.
    """
    l0, l1 = _log_ends(denoiser, ratio_min, ratio_max)
    log_ratio = l0 + (l1 - l0) * u
    y = x0 + expand_like(log_ratio.exp(), x0) * noise(x0)
    error = sum_flat((x0 - _clean(denoiser, y, log_ratio, cond)).square())
    diffusion = (l1 - l0) * torch.exp(-2 * log_ratio).to(error.device, error.dtype) * error
    size = x0[0].numel()
    return (
        diffusion + 0.5 * sum_flat(x0.square()) * math.exp(-2 * l1) + size * (l0 + 0.5 * math.log(2 * math.pi * math.e))
    )

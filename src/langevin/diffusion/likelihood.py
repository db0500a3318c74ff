"""How probable data are under a denoiser.

Everything depends on y = x_t / alpha and r = sigma / alpha alone, so that VE, VP and flow give the same figure. With
l = log r, the probability flow is dy/dl = y - x0_hat, and along it

    log p_{l0}(y_0) = log p_{l1}(y_1) + integral from l0 to l1 of (D - trace d x0_hat / d y) dl     (Song et al. 2021, eq. 39)

The bound is  -log p(x0) <= |x0|^2 / (2 r1^2) + integral of r^-2 |x0 - x0_hat|^2 dl + D/2 log(2 pi e r0^2)
(Kingma et al. 2021, eq. 11-15, with p(x0 | y) = N(y, r0^2) at the small end), with equality for the exact denoiser.

These are densities. Data with levels (pixels of 8 or 16 bits) have probabilities, and their bits are counted in one of two ways:

    the bound with a decoder over the levels: p(x0 | y) proportional to N(y; x0, r0^2), entry by entry (ibid., eq. 8); the last
    term is then -log p(x0 | y) at r0. As r0 falls below the spacing it vanishes.
    uniform dequantisation: log P(x0) >= E log p(x0 + spacing u) + D log spacing, u uniform in (-1/2, 1/2) (Theis et al. 2016).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.shapes import expand_like, sum_flat
from langevin.rng import Noise


class Levels(NamedTuple):
    """The values that an entry of x0 can have: low + spacing k with k = 0 ... num - 1."""

    low: float
    spacing: float
    num: int


class Estimate(NamedTuple):
    """(B,) nats each."""

    value: Tensor
    random_error: Tensor
    """Standard error of the value over its random draws; 0 where none were made, nan where there was one."""
    step_error: Tensor
    """Error of the integrator, found by halving its steps; 0 where there is none."""


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


def estimate_log_prob(
    denoiser: Denoiser,
    x: Tensor,
    *,
    num_steps: int = 128,
    probes: int = 0,
    noise: Callable[[int], Noise] | None = None,
    ratio_min: float = 0.002,
    ratio_max: float | None = None,
    cond: Condition | None = None,
) -> Estimate:
    """`log_prob_flow` at x (B, ...) with its errors: over Hutchinson's probes, and by halving the number of steps.

    Args:
        num_steps: of the finer solution, even.
        probes: how many; 0 is the exact trace.
        noise: number of the probe -> Noise, whose signs the probe is; see `rng.keyed`.
    """
    if num_steps % 2 or num_steps < 2:
        raise ValueError(f"num_steps must be even, not {num_steps}")
    if probes and noise is None:
        raise ValueError("probes are drawn: give noise=rng.keyed(seeds)")
    signs: list[Tensor | None] = [None]
    if probes and noise is not None:
        signs = [torch.where(noise(k)(x) < 0, -1.0, 1.0).to(x) for k in range(probes)]
    fine, coarse = (
        torch.stack(
            [
                log_prob_flow(
                    denoiser, x, num_steps=n, ratio_min=ratio_min, ratio_max=ratio_max, probe=probe, cond=cond
                )
                for probe in signs
            ]
        )
        for n in (num_steps, num_steps // 2)
    )
    value = fine.mean(0)
    spread = fine.std(0) / math.sqrt(len(fine)) if len(fine) > 1 else torch.full_like(value, math.nan if probes else 0)
    return Estimate(value, spread, (value - coarse.mean(0)).abs() / 15)  # an error of fourth order falls to a 16th


def _decoder(x0: Tensor, y: Tensor, ratio: float, levels: Levels) -> Tensor:
    """(B,) nats, -log p(x0 | y) with p over the levels, proportional to N(y; x0, ratio^2)."""
    x0, y = x0.double(), y.double()
    nearest = torch.round((y - levels.low) / levels.spacing).clamp(0, levels.num - 1)
    own = -0.5 * ((y - x0) / ratio).square()
    total = own  # those within nine standard deviations, and x0 itself
    reach = min(math.ceil(9 * ratio / levels.spacing) + 1, levels.num)
    for offset in range(-reach, reach + 1):
        k = nearest + offset
        value = levels.low + levels.spacing * k
        other = (k >= 0) & (k < levels.num) & ((value - x0).abs() > 0.5 * levels.spacing)
        log_kernel = -0.5 * ((y - value) / ratio).square()
        total = torch.where(other, torch.logaddexp(total, log_kernel), total)
    return sum_flat(total - own)


@torch.no_grad()
def negative_elbo(
    denoiser: Denoiser,
    x0: Tensor,
    u: Tensor,
    noise: Noise,
    *,
    levels: Levels | None = None,
    ratio_min: float | None = None,
    ratio_max: float | None = None,
    cond: Condition | None = None,
) -> Tensor:
    """(B,) nats: one unbiased draw of the negative evidence lower bound of x0 (B, ...).

    Args:
        u: (B,) numbers in (0, 1), where in log(sigma / alpha) to look; `rng.uniforms` spreads them evenly.
        levels: those of data that have them: -log P(x0) is bounded instead of minus the log density. `noise` is called twice.
        ratio_min: the bound holds whatever it is: .002, or half the spacing of the levels, where it is not given.
        ratio_max: as for `log_prob_flow`.
    """
    if ratio_min is None:
        ratio_min = 0.002 if levels is None else levels.spacing / 2
    l0, l1 = _log_ends(denoiser, ratio_min, ratio_max)
    log_ratio = l0 + (l1 - l0) * u
    y = x0 + expand_like(log_ratio.exp(), x0) * noise(x0)
    error = sum_flat((x0 - _clean(denoiser, y, log_ratio, cond)).square())
    diffusion = (l1 - l0) * torch.exp(-2 * log_ratio).to(error.device, error.dtype) * error
    prior = 0.5 * sum_flat(x0.square()) * math.exp(-2 * l1)
    if levels is not None:
        last = _decoder(x0, x0 + ratio_min * noise(x0), ratio_min, levels).to(x0.dtype)
    else:
        last = torch.full_like(prior, x0[0].numel() * (l0 + 0.5 * math.log(2 * math.pi * math.e)))
    return diffusion + prior + last


def estimate_bound(
    denoiser: Denoiser,
    x0: Tensor,
    noise: Callable[[int], Noise],
    *,
    draws: int = 16,
    levels: Levels | None = None,
    ratio_min: float | None = None,
    ratio_max: float | None = None,
    cond: Condition | None = None,
) -> Estimate:
    """The negative evidence lower bound of x0 (B, ...) from several draws, spread evenly over the noise levels.

    Args:
        noise: number of the draw -> Noise; see `rng.keyed`. Each sample's draws are its own.
        levels, ratio_min, ratio_max: as for `negative_elbo`.

    The random error is that of independent draws: evenly spread ones have less.
    """

    def draw(k: int) -> Tensor:
        own = noise(k)
        u = torch.special.ndtr(own(x0.new_empty(len(x0), 1, dtype=torch.float64)))[:, 0]
        at = ((k + u) / draws).clamp(1e-12, 1 - 1e-12)
        return negative_elbo(denoiser, x0, at, own, levels=levels, ratio_min=ratio_min, ratio_max=ratio_max, cond=cond)

    each = torch.stack([draw(k) for k in range(draws)])
    value = each.mean(0)
    spread = each.std(0) / math.sqrt(draws) if draws > 1 else torch.full_like(value, math.nan)
    return Estimate(value, spread, torch.zeros_like(value))

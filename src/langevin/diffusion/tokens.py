"""Losses and likelihood of tokens. The bound is the loss: its integrand at a random time trains, its mean measures.

    -log p(x0) <= E over t ~ U(0, 1), x_t ~ q(x_t | x0) of nll_rate

with equality for the exact denoiser. There is nothing to add at either end: at t = 1 every token is from the prior, at t = 0 each is
known. For masked diffusion the integrand is MDLM's and MD4's weighted cross entropy, for uniform diffusion SEDD's score entropy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.posterior import Categorical
from langevin.diffusion.process import CategoricalDiffusion
from langevin.diffusion.shapes import mean_flat
from langevin.rng import Noise


def bound_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, noise: Noise, *, cond: Condition | None = None) -> Tensor:
    """(B,) nats per token: one draw of the integrand of the bound, for tokens x0 (B, *shape) and t (B,) in (0, 1)."""
    x_t = denoiser.process.corrupt(x0, t, noise)
    return denoiser.process.nll_rate(denoiser(x_t, t, cond), x0, x_t, t) / x0[0].numel()


def cross_entropy_loss(
    denoiser: Denoiser, x0: Tensor, t: Tensor, noise: Noise, *, cond: Condition | None = None
) -> Tensor:
    """(B,) nats per token: -log p(x0 | x_t), every time alike.

    Of masked tokens that is MaskGIT's loss (Chang et al. 2022, eq. 1); beside the bound it is D3PM's auxiliary loss (Austin et
    al. 2021, eq. 5).
    """
    q = denoiser(denoiser.process.corrupt(x0, t, noise), t, cond)
    assert isinstance(q, Categorical)
    return -mean_flat(q.log_probs.gather(-1, x0[..., None])[..., 0])


def token_step_kl(
    process: CategoricalDiffusion, q: Categorical, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor
) -> Tensor:
    """(B,) nats, KL(q(x_s | x_t, x0) || p(x_s | x_t)) of one reverse step, 0 <= s < t: D3PM's loss in discrete time (eq. 1)."""
    true = process.reverse(Categorical.point(x0, process.num_values), x_t, t, s)
    return true.kl(process.reverse(q, x_t, t, s))


@torch.no_grad()
def token_nll(denoiser: Denoiser, x0: Tensor, u: Tensor, noise: Noise, *, cond: Condition | None = None) -> Tensor:
    """(B,) nats: one unbiased draw of the upper bound of -log p(x0), x0 (B, *shape).

    Args:
        u: (B,) times in (0, 1); `rng.uniforms` spreads them evenly.
    """
    return x0[0].numel() * bound_loss(denoiser, x0, u, noise, cond=cond)


@dataclass(frozen=True)
class TokenRates:
    """A likelihood in the units in which people give it. Figures of different vocabularies compare in bits per character."""

    nats_per_token: float
    bits_per_token: float
    perplexity: float
    bits_per_character: float | None


def token_rates(nats: float, num_tokens: int, num_characters: int | None = None) -> TokenRates:
    """The rates of a text that costs so many nats.

    Args:
        nats: the sum of -log p over the whole text.
        num_tokens, num_characters: length of that text.
    """
    each = nats / num_tokens
    characters = None if num_characters is None else nats / num_characters / math.log(2)
    return TokenRates(each, each / math.log(2), math.exp(each), characters)

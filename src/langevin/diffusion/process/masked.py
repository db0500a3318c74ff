"""Masked (absorbing) diffusion: a token survives with probability alpha_t and is otherwise the mask, number V.

    q(x_s | x_t = mask, x0):   x0 with (alpha_s - alpha_t) / (1 - alpha_t),   mask with (1 - alpha_s) / (1 - alpha_t)
    q(x_s | x_t = v):          v: what is unmasked never changes
    -log p(x0) <= integral of -alpha' / (1 - alpha) E sum over masked tokens of -log p(x0 | x_t) dt

MDLM (Sahoo et al. 2024), eq. 7 and 10; MD4 (Shi et al. 2024), eq. 4. The time tells nothing of x0 that the unmasked tokens
do not: the exact denoiser does not depend on t, and the bound not on the schedule.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.posterior import Categorical, Posterior
from langevin.diffusion.process.categorical import CategoricalDiffusion, tokens_of
from langevin.diffusion.shapes import sum_flat
from langevin.rng import Noise


@dataclass(frozen=True)
class MaskedDiffusion(CategoricalDiffusion):
    """Noisy tokens lie in 0 ... V, of which V is the mask; a posterior has V entries and never says mask."""

    @property
    def mask(self) -> int:
        """The mask's number, V."""
        return self.num_values

    @property
    def limit(self) -> Tensor:
        return torch.eye(self.num_values + 1, dtype=torch.float64)[self.mask]

    def _drawn(self, like: Tensor, noise: Noise) -> Tensor:
        return torch.full_like(like, self.mask)

    def evidence(self, x_t: Tensor, t: Tensor) -> Tensor:
        """0 for each value where there is a mask; else the token itself is certain."""
        values = torch.arange(self.num_values, device=x_t.device)
        x_t = x_t[..., None]
        return torch.where((x_t == values) | (x_t == self.mask), 0.0, -torch.inf).double()

    def reverse(self, q: Posterior, x_t: Tensor, t: Tensor, s: Tensor) -> Categorical:
        """Over V + 1 states; the mask among them has probability 0 at s = 0."""
        q = tokens_of(q)
        alpha_s, lost = self.alpha(s, x_t), self.lost(t, x_t)
        shown = torch.log((alpha_s - self.alpha(t, x_t)) / lost)[..., None] + q.log_probs
        masked = torch.log((1 - alpha_s) / lost).expand(x_t.shape)[..., None]
        is_mask = (x_t == self.mask)[..., None]
        kept = Categorical.point(x_t, self.num_values + 1).logits
        return Categorical(torch.where(is_mask, torch.cat([shown, masked], -1), kept))

    def nll_rate(self, q: Posterior, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        surprise = -tokens_of(q).log_probs.gather(-1, x0[..., None])[..., 0]
        weight = self.death_rate(t, x_t) / self.lost(t, x_t)
        return sum_flat(weight * torch.where(x_t == self.mask, surprise, 0.0))

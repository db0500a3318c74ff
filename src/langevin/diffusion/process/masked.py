"""Masked (absorbing) diffusion: a token survives with probability alpha_t and is otherwise the mask, number V.

    q(x_s | x_t = mask, x0):   x0 with (alpha_s - alpha_t) / (1 - alpha_t),   mask with (1 - alpha_s) / (1 - alpha_t)
    q(x_s | x_t = v):          v: what is unmasked never changes
    -log p(x0) <= integral of -alpha' / (1 - alpha) E sum over masked tokens of -log p(x0 | x_t) dt

MDLM (Sahoo et al. 2024), eq. 7 and 10; MD4 (Shi et al. 2024), eq. 4. The time tells nothing of x0 that the unmasked tokens
do not: the exact denoiser does not depend on t, and the bound not on the schedule.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from langevin.diffusion.posterior import Categorical, Posterior
from langevin.diffusion.process.categorical import CategoricalDiffusion, tokens_of
from langevin.diffusion.shapes import sum_flat
from langevin.rng import Noise, uniform_like


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

    def reverse(self, q: Posterior, x_t: Tensor, t: Tensor, s: Tensor) -> "Unmasking":
        """Over V + 1 states; the mask among them has probability 0 at s = 0."""
        alpha_s, lost = self.alpha(s, x_t), self.lost(t, x_t)
        shown, hidden = (alpha_s - self.alpha(t, x_t)) / lost, (1 - alpha_s) / lost
        return Unmasking(tokens_of(q), x_t, shown.expand(x_t.shape), hidden)

    def nll_rate(self, q: Posterior, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        surprise = -tokens_of(q).log_probs.gather(-1, x0[..., None])[..., 0]
        weight = self.death_rate(t, x_t) / self.lost(t, x_t)
        return sum_flat(weight * torch.where(x_t == self.mask, surprise, 0.0))


class Unmasking(Categorical):
    """One reverse step: what is masked shows a value of q with probability `shown` and else stays; all else stays.

    A draw forms the law of the tokens that show alone, of which there are few: with a large vocabulary that is most of the work.

    Args:
        q: over V values.
        x_t: (B, *shape), V where masked.
        shown, hidden: (B, *shape) float64, or broadcasting to it; their sum is 1.
    """

    def __init__(self, q: Categorical, x_t: Tensor, shown: Tensor, hidden: Tensor) -> None:
        vars(self).update(q=q, x_t=x_t, shown=shown, hidden=hidden)

    q: Categorical
    x_t: Tensor
    shown: Tensor
    hidden: Tensor

    @cached_property
    def logits(self) -> Tensor:
        """(B, *shape, V + 1)."""
        values = torch.log(self.shown)[..., None] + self.q.log_probs
        mask = torch.log(self.hidden).expand(self.x_t.shape)[..., None]
        num_values = self.q.logits.shape[-1]
        kept = Categorical.point(self.x_t, num_values + 1).logits
        return torch.where((self.x_t == num_values)[..., None], torch.cat([values, mask], -1), kept)

    def sample(self, noise: Noise) -> Tensor:
        u = uniform_like(noise, self.x_t)
        now = (self.x_t == self.q.logits.shape[-1]) & (u < self.shown)
        return self.x_t.masked_scatter(now, Categorical(self.q.logits[now]).quantile((u / self.shown)[now]))

"""Uniform diffusion: a token survives with probability alpha_t and is otherwise drawn anew from all V values.

With w_v = p(x0 = v | x_t) / q(x_t | x0 = v), W = sum of w_v and 1 / q(x_t | x0) taken inside the average over x0,

    q(x_s = k | x_t) = q(x_t | x_s = k) ((1 - alpha_s) W / V + alpha_s w_k)
    p_t(y) / p_t(x_t) = (1 - alpha_t) W / V + alpha_t w_y            for y that differs in this token alone

the latter being SEDD's concrete score s(y) (Lou et al. 2024, eq. 5). With r(y) = q(y | x0) / q(x_t | x0), what s is if x0 is known,

    -log p(x0) <= integral of -alpha' / (alpha V) E sum over tokens, y != x_t, of s - r + r log(r / s) dt

SEDD's weighted score entropy (eq. 7), Campbell et al. 2022's bound: the mean divergence of the rates of two jump processes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.posterior import Categorical, Posterior
from langevin.diffusion.process.categorical import CategoricalDiffusion, tokens_of
from langevin.diffusion.shapes import sum_flat
from langevin.rng import Noise, uniform_like


@dataclass(frozen=True)
class UniformDiffusion(CategoricalDiffusion):
    """Noisy tokens are values like any other."""

    @property
    def limit(self) -> Tensor:
        return torch.full((self.num_values,), 1 / self.num_values, dtype=torch.float64)

    def _drawn(self, like: Tensor, noise: Noise) -> Tensor:
        return (uniform_like(noise, like) * self.num_values).long().clamp(max=self.num_values - 1)

    def _is(self, x: Tensor) -> Tensor:
        """(B, *shape, V) which value each token has."""
        return x[..., None] == torch.arange(self.num_values, device=x.device)

    def evidence(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, lost = self.alpha(t, x_t)[..., None], self.lost(t, x_t)[..., None]
        return torch.log(lost / self.num_values + alpha * self._is(x_t))

    def ratios(self, q: Posterior, x_t: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """(B, *shape, V) p_s(y) / p_t(x_t), s = t where it is not given, averaged over q: the concrete score, at t > 0."""
        w = torch.exp(tokens_of(q).log_probs - self.evidence(x_t, t))
        alpha = self.alpha(t if s is None else s, x_t)
        lost = self.lost(t, x_t) if s is None else 1 - alpha
        return lost[..., None] / self.num_values * w.sum(-1, keepdim=True) + alpha[..., None] * w

    def reverse(self, q: Posterior, x_t: Tensor, t: Tensor, s: Tensor) -> Categorical:
        alpha_ts = (self.alpha(t, x_t) / self.alpha(s, x_t))[..., None]
        step = (1 - alpha_ts) / self.num_values + alpha_ts * self._is(x_t)
        return Categorical(torch.log(step * self.ratios(q, x_t, t, s)))

    def nll_rate(self, q: Posterior, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        score, true = self.ratios(q, x_t, t), self.ratios(Categorical.point(x0, self.num_values), x_t, t)
        divergence = score - true + true * (true.log() - score.log())
        each = torch.where(self._is(x_t), 0.0, divergence).sum(-1)
        return sum_flat(self.death_rate(t, x_t) / self.alpha(t, x_t) / self.num_values * each)

"""Tokens survive with probability alpha_t and are otherwise drawn anew from a law pi: what masked and uniform diffusion share.

    q(x_t | x_s) = alpha_ts delta(x_s) + (1 - alpha_ts) pi,   alpha_ts = alpha_t / alpha_s

each token by itself (Austin et al. 2021, D3PM, section 3.1). pi is the mask, or uniform over the vocabulary. The reverse of a step is

    q(x_s = k | x_t, x0) = q(x_t | x_s = k) q(x_s = k | x0) / q(x_t | x0)

Of a schedule alpha alone is read, as a probability: `Flow` is the linear one, alpha = 1 - t, `Cosine(s=0)` is cos(pi t / 2).
Probabilities are float64 throughout.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.posterior import Categorical, Posterior
from langevin.diffusion.process.base import Process
from langevin.diffusion.schedules.base import Schedule
from langevin.diffusion.shapes import expand_like
from langevin.rng import Noise, uniform_like


@dataclass(frozen=True)
class CategoricalDiffusion(Process):
    """Data are int64 tokens (B, *shape) in 0 ... V - 1.

    Args:
        schedule: alpha_t is the probability that a token survives until t; it must be 0 at t = 1.
        num_values: V.
    """

    schedule: Schedule
    num_values: int

    def __post_init__(self) -> None:
        if self.num_values < 1:
            raise ValueError(f"a vocabulary has at least one value, not {self.num_values}")
        left = self.schedule.alpha(torch.ones((), dtype=torch.float64)).item()
        if left > 1e-9:
            raise ValueError(f"a share {left:.2g} of the tokens survives: the schedule's alpha must be 0 at t = 1")

    @property
    @abstractmethod
    def limit(self) -> Tensor:
        """(K,) pi over all K states of a token, float64."""

    @abstractmethod
    def evidence(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, *shape, V) log q(x_t | x0 = v), up to a number that is the same for all v; float64."""

    def alpha(self, t: Tensor, x: Tensor) -> Tensor:
        """alpha_t in float64, shaped to meet the tokens x."""
        return expand_like(self.schedule.alpha(t.double()), x.double())

    def lost(self, t: Tensor, x: Tensor) -> Tensor:
        """1 - alpha_t, shaped like `alpha`; kept above 0 where it rounds to that, since it divides what is 0 there."""
        return (1 - self.alpha(t, x)).clamp(min=1e-30)

    def death_rate(self, t: Tensor, x: Tensor) -> Tensor:
        """-d alpha / dt > 0 in float64, shaped to meet the tokens x."""
        return expand_like(-self.schedule.alpha_rate(t.double()), x.double())

    def transition(self, t: Tensor, s: Tensor | None = None) -> Tensor:
        """(K, K) q(x_t = column | x_s = row) for times (); s = 0 where it is not given."""
        alpha = self.schedule.alpha(t.double())
        alpha_ts = alpha if s is None else alpha / self.schedule.alpha(s.double())
        return alpha_ts * torch.eye(len(self.limit), dtype=torch.float64) + (1 - alpha_ts) * self.limit

    @abstractmethod
    def reverse(self, q: Posterior, x_t: Tensor, t: Tensor, s: Tensor) -> Categorical:
        """Over all K states."""

    def prior(
        self,
        shape: Sequence[int],
        noise: Noise,
        *,
        dtype: torch.dtype = torch.int64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Every token from pi, exact. int64 whatever dtype says, which is that of continuous data."""
        return self._drawn(torch.empty(tuple(shape), dtype=torch.int64, device=device), noise)

    @abstractmethod
    def _drawn(self, like: Tensor, noise: Noise) -> Tensor:
        """Tokens from pi, shaped and placed like `like`."""

    def corrupt(self, x: Tensor, t: Tensor, noise: Noise, *, s: Tensor | None = None) -> Tensor:
        alpha_ts = self.alpha(t, x) if s is None else self.alpha(t, x) / self.alpha(s, x)
        return torch.where(uniform_like(noise, x) < alpha_ts, x, self._drawn(x, noise))


def tokens_of(q: Posterior) -> Categorical:
    """q itself, where it is of tokens. Raises TypeError where it is not."""
    if not isinstance(q, Categorical):
        raise TypeError(f"a process of tokens reverses a Categorical posterior, not a {type(q).__name__}")
    return q

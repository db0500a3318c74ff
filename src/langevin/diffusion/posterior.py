"""What a denoiser says: p(x0 | x_t)."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from langevin.diffusion.shapes import sum_flat
from langevin.rng import Noise, uniform_like


class Posterior(ABC):
    """A distribution over x0 (B, ...)."""

    mean: Tensor

    @abstractmethod
    def sample(self, noise: Noise) -> Tensor:
        """One draw, shaped like x0."""

    @abstractmethod
    def log_prob(self, x0: Tensor) -> Tensor:
        """(B,) nats."""


@dataclass(frozen=True)
class Gaussian(Posterior):
    """N(mean, var), independent entries. var broadcasts against mean; None is a point mass at the mean."""

    mean: Tensor
    var: Tensor | None = None

    def sample(self, noise: Noise) -> Tensor:
        return self.mean if self.var is None else self.mean + self.var.sqrt() * noise(self.mean)

    def log_prob(self, x0: Tensor) -> Tensor:
        if self.var is None:
            raise ValueError("a point mass has no density; give the posterior a variance")
        var = self.var.expand_as(self.mean)
        return -0.5 * sum_flat((x0 - self.mean).square() / var + var.log() + math.log(2 * math.pi))

    def reverse_var(self, floor: Tensor, gain: Tensor) -> Tensor:
        """Variance of gain * x0 + N(0, floor) with x0 from this: what one reverse step carries on."""
        return floor if self.var is None else floor + gain.square() * self.var


@dataclass(frozen=True)
class LearnedRange(Gaussian):
    """A mean, and a place between the smallest and the largest variance that a reverse step can have.

    The smallest is that of known x0, the largest that of x0 with the given var (unit-variance data: var =
    sigma^2 / (alpha^2 + sigma^2), DDPM's beta). Improved DDPM, eq. 15: exp(f log largest + (1 - f) log smallest).

    Args:
        fraction: f, shaped like the mean; 0 smallest, 1 largest.
    """

    fraction: Tensor | None = None

    def reverse_var(self, floor: Tensor, gain: Tensor) -> Tensor:
        assert self.var is not None and self.fraction is not None
        largest = floor + gain.square() * self.var
        return torch.where(floor > 0, floor * (largest / floor.clamp(min=1e-38)).pow(self.fraction), floor)


@dataclass(frozen=True)
class Categorical(Posterior):
    """Independent tokens.

    Args:
        logits: (B, *shape, K), up to a constant in each token; -inf is never drawn.
    """

    logits: Tensor

    @staticmethod
    def point(x0: Tensor, num_values: int) -> "Categorical":
        """Certainty of x0 (B, *shape)."""
        values = torch.arange(num_values, device=x0.device)
        return Categorical(torch.where(x0[..., None] == values, 0.0, -torch.inf).double())

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        raise TypeError("tokens have no mean: the solver for them is `ancestral`")

    @cached_property
    def log_probs(self) -> Tensor:
        """(B, *shape, K) in the dtype of the logits."""
        return self.logits.log_softmax(-1)

    @property
    def probs(self) -> Tensor:
        """(B, *shape, K) float64."""
        return self.logits.double().softmax(-1)

    def sample(self, noise: Noise) -> Tensor:
        """One draw (B, *shape) int64: the inverse distribution function of one float64 uniform number a token.

        Gumbel noise in single precision cannot exceed 16.6 and so draws rare values too seldom: a lower temperature
        (Zheng et al. 2024). Here each value has its probability to 1e-15.
        """
        return self.quantile(uniform_like(noise, self.logits[..., 0]))

    def quantile(self, u: Tensor) -> Tensor:
        """(B, *shape) int64, the value below which lies the share u (B, *shape) float64 in [0, 1] of the probability."""
        below = self.probs.cumsum(-1)
        u = u.clamp(max=1 - 2.0**-53) * below[..., -1]
        return torch.searchsorted(below, u[..., None], right=True)[..., 0]

    def log_prob(self, x0: Tensor) -> Tensor:
        return sum_flat(self.log_probs.gather(-1, x0[..., None])[..., 0])

    def kl(self, other: "Categorical") -> Tensor:
        """(B,) nats, KL(self || other)."""
        p = self.probs
        return sum_flat(p * torch.where(p > 0, self.log_probs - other.log_probs, 0.0))

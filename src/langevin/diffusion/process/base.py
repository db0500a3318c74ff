"""How data turn into noise, and what is known of the way back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from langevin.diffusion.posterior import Posterior
from langevin.diffusion.schedules.base import Schedule
from langevin.rng import Noise


class Process(ABC):
    """A Markov process from data at t = 0 to noise at t = 1."""

    schedule: Schedule

    @abstractmethod
    def prior(self, shape: Sequence[int], noise: Noise, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """x at t = 1, of shape (B, ...)."""

    @abstractmethod
    def corrupt(self, x: Tensor, t: Tensor, noise: Noise, *, s: Tensor | None = None) -> Tensor:
        """A draw of q(x_t | x_s): of the closed form q(x_t | x0) where s is not given. t, s: () or (B,), s < t."""

    @abstractmethod
    def reverse(self, q: Posterior, x_t: Tensor, t: Tensor, s: Tensor) -> Posterior:
        """q(x_s | x_t, x0) averaged over q(x0 | x_t), s < t."""

    @abstractmethod
    def nll_rate(self, q: Posterior, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """(B,) integrand over t of the negative evidence lower bound, in nats."""

"""x_t = alpha_t x0 + sigma_t eps with t from 0 (data: alpha = 1, sigma = 0) to 1 (noise).

    lam = log(alpha / sigma),  log_snr = 2 lam,  strictly decreasing in t

Each schedule is a frozen dataclass of three functions of t. sigma is written so that nothing cancels near t = 0, alpha
so that nothing cancels near t = 1. Times are float64 wherever they can be.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class Schedule(ABC):
    """How much signal and how much noise there is at a time."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data at t in [0, 1], any shape; 1 at t = 0."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at t in [0, 1], any shape; 0 at t = 0."""

    @abstractmethod
    def inverse(self, log_snr: Tensor) -> Tensor:
        """The time at which log_snr(t) is this; +inf gives 0. Below log_snr(1), where that is finite, t > 1."""

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2); +inf at t = 0, -inf where alpha is 0."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """d log_snr / dt at t in (0, 1), by automatic differentiation; negative."""
        return _rate(self.log_snr, t)

    def alpha_rate(self, t: Tensor) -> Tensor:
        """d alpha / dt at t in (0, 1), by automatic differentiation; never positive."""
        return _rate(self.alpha, t)


def _rate(f: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        t = t.detach().clone().requires_grad_()
        (rate,) = torch.autograd.grad(f(t).sum(), t)
    return rate


def from_ratio(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha^2, sigma^2) of a variance-preserving schedule, alpha^2 + sigma^2 = 1, without cancellation."""
    return torch.sigmoid(log_snr), torch.sigmoid(-log_snr)

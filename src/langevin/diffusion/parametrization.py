"""What a network's output means: x0_hat = c_skip x_t + c_out F(c_in x_t, c_noise).

                c_in                               c_skip                              c_out
    Eps         1 / h                              1 / alpha                           -sigma / alpha
    X0          1 / h                              0                                   1
    V           1 / h                              alpha / h^2                         -sigma / h^2          v = alpha eps - sigma x0
    Score       1 / h                              1 / alpha                           sigma^2 / alpha
    Flow        1                                  1 / (alpha + sigma)                 -sigma / (alpha + sigma)  u = eps - x0
    Karras      1 / k                              alpha d^2 / k^2                     sigma d / k           k^2 = alpha^2 d^2 + sigma^2

    h^2 = alpha^2 + sigma^2 (1 for variance-preserving schedules), d = sigma_data, c_noise = log(sigma / alpha) / 4 for all.

Karras is table 1 of "Elucidating the Design Space" (Karras et al. 2022) for any schedule, on x_t / alpha.
Where alpha = 0, eps and score say nothing of x0: x0_hat is 0 there, the mean of centred data. Use v, flow or Karras with
schedules that reach alpha = 0.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.posterior import Gaussian, LearnedRange, Posterior
from langevin.diffusion.shapes import beside, expand_like

LOG_RATIO_LIMIT = 12.0
"""c_noise is clamped at |log(sigma / alpha)| = 12, beyond every schedule's interior, to stay finite at both ends."""


class Coefficients(NamedTuple):
    """Each shaped like alpha."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor


def noise_level(alpha: Tensor, sigma: Tensor) -> Tensor:
    """c_noise = log(sigma / alpha) / 4, finite; shaped like alpha."""
    return (sigma.log() - alpha.log()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT) / 4


class Parametrization(ABC):
    """A frozen dataclass; alpha and sigma are () or (B,)."""

    @abstractmethod
    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        """c_in, c_skip, c_out."""

    def inputs(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(c_in x_t, c_noise (B,)): what the network is given."""
        c_in = expand_like(self.coefficients(alpha, sigma).c_in, x_t)
        c_noise = noise_level(alpha, sigma)
        if c_noise.ndim == 0 and c_noise.device.type == "cpu":  # filling needs no copy, on which a stream would wait
            return c_in * x_t, x_t.new_full((len(x_t),), c_noise.item())
        return c_in * x_t, beside(c_noise, x_t).expand(len(x_t))

    def posterior(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Posterior:
        """p(x0 | x_t) from the network's output."""
        _, c_skip, c_out = self.coefficients(alpha, sigma)
        return Gaussian(expand_like(c_skip, x_t) * x_t + expand_like(c_out, x_t) * out)

    def target(self, x0: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output that would say x0 exactly: (x0 - c_skip x_t) / c_out."""
        _, c_skip, c_out = self.coefficients(alpha, sigma)
        return (x0 - expand_like(c_skip, x_t) * x_t) / expand_like(c_out, x_t)


def _inverse_or_zero(alpha: Tensor) -> Tensor:
    return torch.where(alpha > 0, 1 / alpha, torch.zeros_like(alpha))


@dataclass(frozen=True)
class Eps(Parametrization):
    """The noise (DDPM)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        scale = _inverse_or_zero(alpha)
        return Coefficients(torch.hypot(alpha, sigma).reciprocal(), scale, -sigma * scale)


@dataclass(frozen=True)
class X0(Parametrization):
    """The data."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(torch.hypot(alpha, sigma).reciprocal(), torch.zeros_like(alpha), torch.ones_like(alpha))


@dataclass(frozen=True)
class V(Parametrization):
    """v = alpha eps - sigma x0 (Salimans & Ho 2022)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        h = torch.hypot(alpha, sigma)
        return Coefficients(1 / h, alpha / h.square(), -sigma / h.square())


@dataclass(frozen=True)
class Score(Parametrization):
    """d log q(x_t) / d x_t = -eps / sigma."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        scale = _inverse_or_zero(alpha)
        return Coefficients(torch.hypot(alpha, sigma).reciprocal(), scale, sigma.square() * scale)


@dataclass(frozen=True)
class Flow(Parametrization):
    """u = eps - x0, the velocity of the straight line (flow matching)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        total = alpha + sigma
        return Coefficients(torch.ones_like(alpha), 1 / total, -sigma / total)


@dataclass(frozen=True)
class Karras(Parametrization):
    """Inputs and targets of unit variance at every noise level, for data with standard deviation sigma_data."""

    sigma_data: float = 0.5

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        k = torch.hypot(alpha * self.sigma_data, sigma)
        return Coefficients(1 / k, alpha * self.sigma_data**2 / k.square(), sigma * self.sigma_data / k)


@dataclass(frozen=True)
class LearnedVariance(Parametrization):
    """Improved DDPM: twice the channels, the second half says where the step's variance lies (eq. 15).

    The network's extra output o gives the fraction f = (o + 1) / 2 of the way from the smallest to the largest
    log-variance, as in the paper's code; it is not bounded there and not here.
    """

    base: Parametrization

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return self.base.coefficients(alpha, sigma)

    def posterior(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Posterior:
        out, extra = out.chunk(2, dim=1)
        mean = self.base.posterior(out, x_t, alpha, sigma).mean
        var = expand_like(sigma.square() / (alpha.square() + sigma.square()), x_t)
        return LearnedRange(mean, var, (extra + 1) / 2)

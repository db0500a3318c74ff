"""Loss weights: w(t) in the mean over entries of w |x0 - x0_hat|^2.

Every loss that people name is the squared error of x0 with a weight in snr = alpha^2 / sigma^2:

    x0 1    eps snr    v snr + 1    flow (1 + sqrt(snr))^2    Karras snr + sigma_data^-2    min-SNR min(snr, gamma)
    P2 snr / (k + snr)^gamma        sigmoid snr * S(bias - log_snr)        VLB -1/2 d snr / dt
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule


class Weight(ABC):
    """A frozen dataclass."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The weight at t in (0, 1), shaped like t."""


@dataclass(frozen=True)
class Uniform(Weight):
    """Plain error of x0."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class SNR(Weight):
    """The error of eps: DDPM's simple loss (Ho et al. 2020, eq. 14)."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.log_snr(t).exp()


@dataclass(frozen=True)
class V(Weight):
    """ "SNR + 1" (Salimans & Ho 2022): the error of v where alpha^2 + sigma^2 = 1."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.log_snr(t).exp() + 1


@dataclass(frozen=True)
class Flow(Weight):
    """The error of u = eps - x0."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return (1 + (0.5 * schedule.log_snr(t)).exp()).square()


@dataclass(frozen=True)
class Karras(Weight):
    """1 / c_out^2: every noise level's target has unit variance (Karras et al. 2022, table 1)."""

    sigma_data: float = 0.5

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.log_snr(t).exp() + self.sigma_data**-2


@dataclass(frozen=True)
class MinSNR(Weight):
    """min(snr, gamma) (Hang et al. 2023)."""

    gamma: float = 5.0

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.log_snr(t).exp().clamp(max=self.gamma)


@dataclass(frozen=True)
class P2(Weight):
    """snr / (k + snr)^gamma (Choi et al. 2022, eq. 8)."""

    k: float = 1.0
    gamma: float = 1.0

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        snr = schedule.log_snr(t).exp()
        return snr / (self.k + snr).pow(self.gamma)


@dataclass(frozen=True)
class Sigmoid(Weight):
    """The error of eps times S(bias - log_snr) (Kingma & Gao 2023; Hoogeboom et al. 2024); tends to e^bias at t = 0."""

    bias: float = 2.0

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        log_snr = schedule.log_snr(t)
        return torch.exp(log_snr + torch.nn.functional.logsigmoid(self.bias - log_snr))


@dataclass(frozen=True)
class VLB(Weight):
    """The evidence lower bound, in nats per entry (Kingma et al. 2021, eq. 15)."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return -0.5 * schedule.log_snr(t).exp() * schedule.log_snr_rate(t)

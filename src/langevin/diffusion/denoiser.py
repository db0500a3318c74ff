"""A denoiser says what the clean x0 behind a noisy x_t is. All that samples, guides or measures consumes one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from langevin.diffusion.parametrization import Parametrization
from langevin.diffusion.posterior import Posterior
from langevin.diffusion.process import GaussianDiffusion, Process

Condition = Mapping[str, Tensor]
"""Name -> values (B, ...). A missing key means: unconditional in that key."""


class Denoiser(nn.Module, ABC):
    """(x_t, t, cond) -> p(x0 | x_t, cond)."""

    process: Process

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        """x_t (B, ...), t () or (B,) in [0, 1]. A () time may lie on the CPU whatever the device of x_t."""


class NetworkDenoiser(Denoiser):
    """A network, the process it was trained on, and what its output means.

    Args:
        network: called with (c_in x_t, c_noise (B,), cond).
        process: a GaussianDiffusion.
        parametrization: how the output is read.
    """

    def __init__(self, network: nn.Module, process: GaussianDiffusion, parametrization: Parametrization) -> None:
        super().__init__()
        self.network = network
        self.process: GaussianDiffusion = process
        self.parametrization = parametrization

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        alpha, sigma = self.process.schedule.alpha(t), self.process.schedule.sigma(t)
        x, c_noise = self.parametrization.inputs(x_t, alpha, sigma)
        out = self.network(x, c_noise, cond).to(x_t.dtype)
        return self.parametrization.posterior(out, x_t, alpha, sigma)


def device_of(module: nn.Module) -> torch.device:
    """Where a module's first parameter or buffer lies; the CPU where it has none."""
    tensor: Tensor | None = next(module.parameters(), None)
    if tensor is None:
        tensor = next(module.buffers(), None)
    return torch.device("cpu") if tensor is None else tensor.device

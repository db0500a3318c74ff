"""A denoiser says what the clean x0 behind a noisy x_t is. All that samples, guides or measures consumes one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from langevin.diffusion.parametrization import Parametrization, noise_level
from langevin.diffusion.posterior import Categorical, Posterior
from langevin.diffusion.process import CategoricalDiffusion, GaussianDiffusion, Process

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


class LogitsDenoiser(Denoiser):
    """A network of tokens. It says what x0 may be; what the noisy token itself tells, Bayes' rule adds:

        log p(x0 = v | x_t) = F(x_t, c_noise)_v + log q(x_t | x0 = v) + constant

    For masked diffusion that is MDLM's substitution (Sahoo et al. 2024, section 3.2.3): what is unmasked is certain, and the
    mask is never said. For uniform diffusion the network need not copy its input.

    Args:
        network: called with (x_t (B, *shape) int64, c_noise (B,) = log((1 - alpha) / alpha) / 4, cond); gives (B, *shape, V).
        process: of tokens.
    """

    def __init__(self, network: nn.Module, process: CategoricalDiffusion) -> None:
        super().__init__()
        self.network = network
        self.process: CategoricalDiffusion = process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Categorical:
        alpha = self.process.schedule.alpha(t.double())
        c_noise = noise_level(alpha, 1 - alpha).to(x_t.device, torch.float32).expand(len(x_t))
        out = self.network(x_t, c_noise, cond)
        wide = torch.promote_types(out.dtype, torch.float32)
        return Categorical(out.to(wide) + self.process.evidence(x_t, t).to(wide))


def device_of(module: nn.Module) -> torch.device:
    """Where a module's first parameter or buffer lies; the CPU where it has none."""
    tensor: Tensor | None = next(module.parameters(), None)
    if tensor is None:
        tensor = next(module.buffers(), None)
    return torch.device("cpu") if tensor is None else tensor.device

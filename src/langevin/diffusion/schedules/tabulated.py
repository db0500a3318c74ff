"""Any table of betas (DDPM, Improved DDPM, Stable Diffusion, yours), in continuous time.

Index i of the table is the time t = (i + 1) / T; t = 0 is the data. Between nodes log(sigma / alpha) is linear in t. In an
interval whose end has no logarithm the ratio itself is linear: sigma / alpha from 0 at t = 0 to the first node, and
alpha / sigma down to 0 where the last alpha is 0 (zero terminal SNR). Beyond t = 1 the last interval goes on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.schedules.base import Schedule, from_ratio


@dataclass(frozen=True)
class Tabulated(Schedule):
    """betas: T numbers in (0, 1], beta_i = 1 - (alpha_i / alpha_{i-1})^2; only the last may be 1."""

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(b) for b in self.betas))
        inner, last = self.betas[:-1], self.betas[-1:]
        if not last or not all(0 < b < 1 for b in inner) or not (0 < last[0] <= 1) or self.betas == (1.0,):
            raise ValueError("betas must lie in (0, 1); only the last of several may be 1")

    @staticmethod
    def linear(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> "Tabulated":
        """DDPM's betas (Ho et al. 2020, section 4)."""
        return Tabulated(tuple(torch.linspace(first, last, T, dtype=torch.float64).tolist()))

    @staticmethod
    def scaled_linear(T: int = 1000, first: float = 0.00085, last: float = 0.012) -> "Tabulated":
        """Latent / Stable Diffusion's betas, linear in the square root."""
        root = torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64)
        return Tabulated(tuple(root.square().tolist()))

    @staticmethod
    def from_schedule(schedule: Schedule, T: int = 1000, max_beta: float = 0.999) -> "Tabulated":
        """A variance-preserving schedule read off at t = i / T, betas clipped (Nichol & Dhariwal 2021, section 3.2)."""
        alpha2 = schedule.alpha(torch.arange(T + 1, dtype=torch.float64) / T).square()
        return Tabulated(tuple((1 - alpha2[1:] / alpha2[:-1]).clamp(max=max_beta).tolist()))

    @property
    def T(self) -> int:
        """Number of entries."""
        return len(self.betas)

    @property
    def _nodes(self) -> Tensor:
        """(T,) lam at the nodes; -inf where alpha is 0. Computed once."""
        if "_lam" not in self.__dict__:
            log_keep = torch.log1p(-torch.tensor(self.betas, dtype=torch.float64)).cumsum(0)  # log alpha^2
            lam = 0.5 * (log_keep - torch.log(-torch.expm1(log_keep)))
            object.__setattr__(self, "_lam", lam)
        return self.__dict__["_lam"]  # type: ignore[no-any-return]

    def _log_ratio(self, t: Tensor) -> Tensor:
        """log(sigma / alpha) at t."""
        nodes, T = -self._nodes.to(t.device, t.dtype), self.T
        position = t * T - 1
        i = position.floor().clamp(0, max(T - 2, 0)).long()
        low, high = nodes[i], nodes[(i + 1).clamp(max=T - 1)]
        w = (position - i).clamp(min=0)
        # each branch is finite where the other is taken, so that derivatives are too
        to_zero, none = torch.isinf(high), torch.zeros_like(w)
        fall = -torch.log1p(-torch.where(to_zero, w.clamp(max=1), none))  # alpha / sigma linear to 0
        rise = w * torch.where(to_zero, none, high - low)
        return torch.where(position < 0, nodes[0] + torch.log((t * T).clamp(0, 1)), low + fall + rise)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sqrt(from_ratio(-2 * self._log_ratio(t))[0])

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(from_ratio(-2 * self._log_ratio(t))[1])

    def inverse(self, log_snr: Tensor) -> Tensor:
        nodes, T = -self._nodes.to(log_snr.device, log_snr.dtype), self.T
        ratio = -0.5 * log_snr
        i = (torch.searchsorted(nodes, ratio.contiguous()) - 1).clamp(0, max(T - 2, 0))
        low, high = nodes[i], nodes[(i + 1).clamp(max=T - 1)]
        inner = (ratio - low) / torch.where(torch.isinf(high) | (high == low), torch.ones_like(high), high - low)
        w = torch.where(torch.isinf(high), -torch.expm1(low - ratio), inner)
        below = torch.exp(ratio - nodes[0]) / T
        return torch.where(ratio < nodes[0], below, (i + 1 + w.clamp(min=0)) / T)

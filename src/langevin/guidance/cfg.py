"""Classifier-free guidance: Ho & Salimans 2022; with an interval: Kynkaanniemi et al. 2024.

    x0_hat = uncond + scale * (cond - uncond)

scale 1 is the plain conditional denoiser, 0 the unconditional one. It does not sample the tilted density
p(x) p(c | x)^scale: for Gaussian conditionals its spread is narrower than that density's.
"""

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior


class ClassifierFree(Denoiser):
    """A conditional denoiser, guided.

    Args:
        denoiser: understands a missing key as unconditional.
        scale: strength; 1 changes nothing and costs nothing.
        interval: (low, high) of sigma / alpha inside which guidance acts; outside, the plain conditional denoiser.
    """

    def __init__(self, denoiser: Denoiser, scale: float, interval: tuple[float, float] = (0.0, float("inf"))) -> None:
        super().__init__()
        self.denoiser, self.scale, self.interval = denoiser, float(scale), interval
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        if not cond or self.scale == 1 or not self._acts(t):
            return self.denoiser(x_t, t, cond)
        uncond = self.denoiser(x_t, t, None).mean
        if self.scale == 0:
            return Gaussian(uncond)
        return Gaussian(torch.lerp(uncond, self.denoiser(x_t, t, cond).mean, self.scale))

    def _acts(self, t: Tensor) -> bool:
        low, high = self.interval
        if low <= 0 and high == float("inf"):
            return True
        ratio = torch.exp(-0.5 * self.process.schedule.log_snr(t.flatten()[0].double())).item()
        return low <= ratio <= high

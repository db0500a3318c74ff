"""Autoguidance: Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", 2024, eq. 3.

    x0_hat = weak + scale * (main - weak)

The weak denoiser is of the same kind, smaller or less trained; what both get wrong in the same direction is undone. With the
unconditional denoiser for the weak one it is classifier-free guidance.
"""

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.errors import UsageError


class Autoguidance(Denoiser):
    """A denoiser pushed away from a weaker one; both are given the condition.

    Args:
        scale: strength; 1 is `denoiser` alone, 0 `weak` alone.
    """

    def __init__(self, denoiser: Denoiser, weak: Denoiser, scale: float) -> None:
        super().__init__()
        if weak.process.schedule != denoiser.process.schedule:
            raise UsageError(
                "both denoisers must be on one schedule", help="diffusion.Rescheduled moves one to another"
            )
        self.denoiser, self.weak, self.scale = denoiser, weak, float(scale)
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        if self.scale in (0, 1):
            return (self.denoiser if self.scale else self.weak)(x_t, t, cond)
        return Gaussian(torch.lerp(self.weak(x_t, t, cond).mean, self.denoiser(x_t, t, cond).mean, self.scale))

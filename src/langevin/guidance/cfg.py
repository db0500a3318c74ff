"""Classifier-free guidance: Ho & Salimans 2022; with rescaled contrast: Lin et al. 2024, section 3.4.

    x0_hat = uncond + scale * (cond - uncond)

scale 1 is the plain conditional denoiser, 0 the unconditional one. It does not sample the tilted density
p(x) p(c | x)^scale: for Gaussian conditionals its spread is narrower than that density's.

A large scale exaggerates contrast. Rescaling gives the answer back the standard deviation of the conditional one, sample by
sample (eq. 15-16, on x0_hat, so that sigma / alpha alone decides):  x0_hat (1 - rescale + rescale std(cond) / std(x0_hat)).
"""

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.diffusion.shapes import expand_like
from langevin.errors import UsageError
from langevin.guidance.conditions import meet


class ClassifierFree(Denoiser):
    """A conditional denoiser, guided.

    Args:
        denoiser: understands a missing key as unconditional.
        scale: strength; 1 changes nothing and costs nothing.
        rescale: 0 to 1, how much of the conditional contrast is restored; 0.7 is the paper's choice.
        against: a condition in the place of none: it is pushed away from. Values (1, ...) hold for the whole batch.
    """

    def __init__(
        self, denoiser: Denoiser, scale: float, *, rescale: float = 0.0, against: Condition | None = None
    ) -> None:
        super().__init__()
        if not 0 <= rescale <= 1:
            raise UsageError(f"rescale must lie in [0, 1], not {rescale}")
        self.denoiser, self.scale, self.rescale, self.against = denoiser, float(scale), float(rescale), against
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        if self.scale == 1 or not (cond or self.against):
            return self.denoiser(x_t, t, cond)
        uncond = self.denoiser(x_t, t, meet(self.against, x_t)).mean
        if self.scale == 0:
            return Gaussian(uncond)
        aim = self.denoiser(x_t, t, cond).mean
        x0_hat = torch.lerp(uncond, aim, self.scale)
        if self.rescale:
            gain = aim.flatten(1).std(1) / x0_hat.flatten(1).std(1).clamp(min=1e-12)
            x0_hat = expand_like(1 - self.rescale + self.rescale * gain, x0_hat) * x0_hat
        return Gaussian(x0_hat)

"""CFG++: Chung et al., "CFG++: Manifold-constrained Classifier Free Guidance", 2024, algorithm 2.

A step of DDIM whose clean estimate is guided and whose noise is the unconditional one:

    x_s = alpha_s (uncond + scale (cond - uncond)) + sigma_s (x_t - alpha_t uncond) / sigma_t

It is the DDIM step of the denoiser  uncond + scale / (1 - r_s / r_t) (cond - uncond),  r = sigma / alpha: classifier-free
guidance with a strength that grows as steps get shorter. So it belongs to a grid, and to first-order steps without noise.
scale lies in [0, 1]: 0 is unconditional DDIM. 1 is conditional DDIM in a step that ends at sigma = 0 and stronger than it
elsewhere; a step is the conditional one where scale = 1 - r_s / r_t.
"""

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.diffusion.shapes import expand_like
from langevin.guidance.following import gap


class CFGpp(Denoiser):
    """A conditional denoiser, guided for the steps between `times`.

    Args:
        denoiser: understands a missing key as unconditional.
        scale: the paper's lambda, 0 to 1.
        times: (N + 1,) falling; those that DDIM will visit. A time between two of them belongs to the step it lies in.
    """

    times: Tensor

    def __init__(self, denoiser: Denoiser, scale: float, times: Tensor) -> None:
        super().__init__()
        self.denoiser, self.scale = denoiser, float(scale)
        self.register_buffer("times", torch.as_tensor(times).double(), persistent=False)
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        if not cond:
            return self.denoiser(x_t, t, cond)
        uncond = self.denoiser(x_t, t, None).mean
        if self.scale == 0:
            return Gaussian(uncond)
        strength = expand_like(self.scale / gap(self.process, self.times, t), x_t)
        return Gaussian(uncond + strength * (self.denoiser(x_t, t, cond).mean - uncond))

"""Adaptive projected guidance: Sadat, Hilliges & Weber, "Eliminating Oversaturation and Artifacts of High Guidance Scales", 2024.

    d = cond - uncond, shortened to at most `norm`;   d = along + across, parallel and orthogonal to cond
    x0_hat = cond + (scale - 1) (across + parallel * along)

What is along the answer raises contrast and saturation, what is across it carries the condition. With parallel = 1 and no
limit of the norm it is classifier-free guidance. The paper's momentum is left out: it would make a denoiser remember whom it
answered last, so that two trajectories at once disturb each other.
"""

import math

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.diffusion.shapes import expand_like


class APG(Denoiser):
    """A conditional denoiser, guided mostly across its answer.

    Args:
        denoiser: understands a missing key as unconditional.
        scale: strength; 1 is the plain conditional denoiser.
        parallel: the paper's eta: share of the parallel part that is kept.
        norm: the paper's r: largest Euclidean length of cond - uncond of a sample.
    """

    def __init__(self, denoiser: Denoiser, scale: float, *, parallel: float = 0.0, norm: float = math.inf) -> None:
        super().__init__()
        self.denoiser, self.scale, self.parallel, self.norm = denoiser, float(scale), float(parallel), float(norm)
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        if not cond or self.scale == 1:
            return self.denoiser(x_t, t, cond)
        aim = self.denoiser(x_t, t, cond).mean
        away, answer = (aim - self.denoiser(x_t, t, None).mean).flatten(1), aim.flatten(1)
        tiny = torch.finfo(away.dtype).tiny
        if self.norm < math.inf:
            length = torch.linalg.vector_norm(away, dim=1, keepdim=True)
            away = away * (self.norm / length.clamp(min=tiny)).clamp(max=1)
        share = (away * answer).sum(1) / answer.square().sum(1).clamp(min=tiny)
        along = expand_like(share, aim) * aim
        return Gaussian(aim + (self.scale - 1) * (away.view_as(aim) + (self.parallel - 1) * along))

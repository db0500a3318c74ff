"""Inpainting: entries that are known come back as they are, bit for bit.

The denoiser answers the known values at known entries, so that a trajectory that ends at sigma = 0, where a solver returns
the last answer, ends in them exactly. Alone this is the replacement method: the rest is not told of them but through x_t.
Around posterior sampling (`Inpainting(MMPS(...), ...)`) the rest is drawn to fit and the known entries are exact.
"""

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior


class Inpainting(Denoiser):
    """A denoiser that knows some entries.

    Args:
        known: x0, (B, *shape) or (1, *shape) for the whole batch; values where `seen` is False do not matter.
        seen: bool, shaped like a sample or to broadcast against one.
    """

    known: Tensor
    seen: Tensor

    def __init__(self, denoiser: Denoiser, known: Tensor, seen: Tensor) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("seen", seen, persistent=False)
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        x0_hat = self.denoiser(x_t, t, cond).mean
        return Gaussian(torch.where(self.seen.to(x_t.device), self.known.to(x_t), x0_hat))

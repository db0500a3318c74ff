"""Answers kept in the range of the data: Saharia et al., "Photorealistic Text-to-Image Diffusion Models", 2022, section 2.3.

    static      x0_hat clipped to [-bound, bound]
    dynamic     clipped to [-s, s] and multiplied by bound / s, where s is the quantile of |x0_hat| of the sample, if that
                is beyond the bound

Dynamic thresholding lets strong guidance saturate few entries instead of many.
"""

from dataclasses import replace

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.diffusion.shapes import expand_like
from langevin.errors import UsageError


class Threshold(Denoiser):
    """A denoiser whose mean stays within [-bound, bound].

    Args:
        quantile: None is static; else that of |x0_hat|, in (0, 1], for dynamic thresholding; 0.995 is common.
        bound: the data lie in [-bound, bound].
    """

    def __init__(self, denoiser: Denoiser, *, quantile: float | None = None, bound: float = 1.0) -> None:
        super().__init__()
        if not (bound > 0 and (quantile is None or 0 < quantile <= 1)):
            raise UsageError(f"a threshold has bound > 0 and a quantile in (0, 1], not {bound} and {quantile}")
        self.denoiser, self.quantile, self.bound = denoiser, quantile, float(bound)
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        q = self.denoiser(x_t, t, cond)
        if not isinstance(q, Gaussian):
            raise TypeError(f"a threshold is for Gaussian posteriors, not {type(q).__name__}")
        if self.quantile is None:
            return replace(q, mean=q.mean.clamp(-self.bound, self.bound))
        far = torch.stack([row.float().abs().quantile(self.quantile) for row in q.mean.flatten(1)])
        s = expand_like((far / self.bound).clamp(min=1), q.mean)
        return replace(q, mean=(q.mean / s).clamp(-self.bound, self.bound))

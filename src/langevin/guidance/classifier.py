"""Classifier guidance: Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, section 4.

    x0_hat = uncond + scale * sigma^2 / alpha * grad_{x_t} log p(c | x_t)

The classifier must know noisy x_t. With the exact p(c | x_t) scale 1 is the exact conditional denoiser.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from langevin.diffusion import Condition, Denoiser, Gaussian, GaussianDiffusion, Posterior
from langevin.diffusion.parametrization import Parametrization
from langevin.guidance.covariance import gradient, lever

Classifier = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, ...), t) -> logits (B, K)."""


class NoisyClassifier(nn.Module):
    """p(c | x_t) from a network whose K output channels are summed over space, over the root of the number of positions.

    Args:
        network: called with (c_in x_t, c_noise (B,), None); answers (B, K, *spatial) or (B, K).
        process, parametrization: as of the denoiser it guides; the parametrization says what the network is given.
    """

    def __init__(self, network: nn.Module, process: GaussianDiffusion, parametrization: Parametrization) -> None:
        super().__init__()
        self.network, self.process, self.parametrization = network, process, parametrization

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, K) logits of x_t (B, ...) at t () or (B,)."""
        alpha, sigma = self.process.schedule.alpha(t), self.process.schedule.sigma(t)
        x, c_noise = self.parametrization.inputs(x_t, alpha, sigma)
        out = self.network(x, c_noise, None).to(x_t.dtype)
        votes = out.flatten(2) if out.ndim > 2 else out[..., None]
        return votes.sum(2) / math.sqrt(votes.shape[2])


class ClassifierGuidance(Denoiser):
    """A denoiser guided to the class cond[key], of which the denoiser itself is not told.

    Args:
        denoiser: understands a missing key as unconditional.
        classifier: see `Classifier`.
        scale: 0 is unconditional.
        key: the condition that the classifier answers for: int64 (B,), 0 .. K - 1, or K for a sample without.
    """

    def __init__(self, denoiser: Denoiser, classifier: Classifier, scale: float = 1.0, *, key: str = "label") -> None:
        super().__init__()
        self.denoiser, self.classifier, self.scale, self.key = denoiser, classifier, float(scale), key
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        rest = {name: value for name, value in (cond or {}).items() if name != self.key} or None
        if self.scale == 0 or not cond or self.key not in cond:
            return self.denoiser(x_t, t, rest)
        label = cond[self.key].to(x_t.device)[:, None]

        def log_p(x: Tensor) -> Tensor:
            each = self.classifier(x, t).log_softmax(1)
            return torch.cat([each, torch.zeros_like(each[:, :1])], 1).gather(1, label)  # no class, nothing to learn

        shift = lever(self.process, t, x_t) * gradient(log_p, x_t)
        return Gaussian(self.denoiser(x_t, t, rest).mean + self.scale * shift)

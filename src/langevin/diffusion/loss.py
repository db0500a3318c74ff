"""Training losses per sample. A loss is a weight on |x0 - x0_hat|^2; what a network predicts does not change it."""

import math

import torch
from torch import Tensor, nn

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.posterior import Gaussian
from langevin.diffusion.process import GaussianDiffusion
from langevin.diffusion.shapes import beside, mean_flat, sum_flat
from langevin.diffusion.weights import Weight
from langevin.rng import Noise


def denoising_loss(
    denoiser: Denoiser, x0: Tensor, t: Tensor, noise: Noise, weight: Weight, *, cond: Condition | None = None
) -> Tensor:
    """(B,) w(t) times the mean over entries of |x0 - x0_hat|^2, for x0 (B, ...) and t (B,)."""
    x_t = denoiser.process.corrupt(x0, t, noise)
    error = mean_flat((x0 - denoiser(x_t, t, cond).mean).square())
    return beside(weight(denoiser.process.schedule, t), error) * error


def step_kl(process: GaussianDiffusion, q: Gaussian, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """(B,) nats, KL(q(x_s | x_t, x0) || p(x_s | x_t)) of one reverse step, 0 < s < t (Ho et al. 2020, eq. 5)."""
    true, model = process.reverse(Gaussian(x0), x_t, t, s), process.reverse(q, x_t, t, s)
    assert true.var is not None and model.var is not None
    ratio = true.var / model.var
    return 0.5 * sum_flat((true.mean - model.mean).square() / model.var + ratio - 1 - ratio.log() + 0 * x0)


def hybrid_loss(
    denoiser: Denoiser,
    x0: Tensor,
    t: Tensor,
    noise: Noise,
    weight: Weight,
    *,
    cond: Condition | None = None,
    T: int = 1000,
    scale: float = 0.001,
) -> Tensor:
    """(B,) Improved DDPM's L_simple + scale * L_vlb (eq. 16): the bound trains the variance, and the variance alone.

    L_vlb is T times the KL of the step from t to t - 1/T, in nats per entry; where t < 2/T the step is t/2.
    """
    process = denoiser.process
    assert isinstance(process, GaussianDiffusion)
    x_t = process.corrupt(x0, t, noise)
    q = denoiser(x_t, t, cond)
    assert isinstance(q, Gaussian)
    simple = beside(weight(process.schedule, t), x0) * mean_flat((x0 - q.mean).square())
    fixed_mean = type(q)(**{**vars(q), "mean": q.mean.detach()})
    step = torch.minimum(torch.full_like(t, 1 / T), t / 2)
    return simple + scale * T / x0[0].numel() * step_kl(process, fixed_mean, x0, x_t, t, t - step)


class LearnedUncertainty(nn.Module):
    """loss / exp(u) + u with u learned in the noise level: each level weighs by how well it can be known.

    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2024, eq. 14-15. At the start u = 0.

    Args:
        features: number of random Fourier features of c_noise.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, features: int = 128) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(features, generator=rng))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=rng))
        self.linear = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, loss: Tensor, c_noise: Tensor) -> Tensor:
        """(B,) loss and noise level -> (B,) loss to minimise; may be negative."""
        features = math.sqrt(2) * torch.cos(c_noise.to(self.frequencies)[:, None] * self.frequencies + self.phases)
        u: Tensor = self.linear(features).squeeze(1) / math.sqrt(len(self.frequencies))
        return loss * torch.exp(-u) + u

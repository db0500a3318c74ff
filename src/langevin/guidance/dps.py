"""Diffusion posterior sampling: Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", 2023, algorithm 1.

After each step x_s is moved by  -step / |y - A x0_hat| * grad_{x_t} |y - A x0_hat|^2.  A step of DDIM moves x by
alpha_s (1 - r_s / r_t) for each unit of x0_hat (r = sigma / alpha), so that this is the DDIM step of the denoiser

    x0_hat + 2 step / (alpha_s (1 - r_s / r_t)) * alpha / sigma^2 V A^T (y - A x0_hat) / |y - A x0_hat|

It belongs to a grid. The length of its pull is chosen, not derived: it does not sample the posterior, and its answer moves
with `step` and with the number of steps. Prefer moment matching (`mmps`) where y is linear in x0.
"""

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.diffusion.shapes import expand_like
from langevin.guidance.covariance import covariance
from langevin.guidance.following import following, gap
from langevin.guidance.operators import Operator, dot


class DPS(Denoiser):
    """A denoiser pulled towards what was measured, for the steps between `times`.

    Args:
        operator: A.
        y: the measurement, (B, ...) or (1, ...) for the whole batch.
        times: (N + 1,) falling; those that DDIM will visit.
        step: the paper's zeta', in units of x.
    """

    y: Tensor
    times: Tensor

    def __init__(self, denoiser: Denoiser, operator: Operator, y: Tensor, times: Tensor, *, step: float = 1.0) -> None:
        super().__init__()
        self.denoiser, self.operator, self.step = denoiser, operator, float(step)
        self.register_buffer("y", y, persistent=False)
        self.register_buffer("times", torch.as_tensor(times).double(), persistent=False)
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        x0_hat, cov = covariance(self.denoiser, x_t, t, cond)
        misfit = self.y.to(x_t) - self.operator(x0_hat)
        length = dot(misfit, misfit).sqrt().clamp(min=torch.finfo(misfit.dtype).tiny)
        alpha, sigma = self.process.schedule.alpha(t), self.process.schedule.sigma(t)
        alpha_s = self.process.schedule.alpha(following(self.times, t))
        per_cov = torch.where(sigma > 0, alpha / sigma.square(), 0.0)
        strength = expand_like(2 * self.step * per_cov / (alpha_s * gap(self.process, self.times, t)), x_t)
        return Gaussian(x0_hat + strength * cov(self.operator.transpose(misfit / length)))

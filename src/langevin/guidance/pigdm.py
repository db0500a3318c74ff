"""Pseudo-inverse guidance: Song et al., "Pseudoinverse-Guided Diffusion Models for Inverse Problems", 2023, section 3.

For y = A x0 + std eps, with p(x0 | x_t) taken for N(x0_hat, r^2 I),  r^2 = sigma^2 / (alpha^2 + sigma^2) (data of unit variance):

    x0_hat + V A^T (std^2 + r^2 A A^T)^-1 (y - A x0_hat),   V = sigma^2 / alpha d x0_hat / d x_t

One variance for all entries and none of their correlation: cheaper than moment matching, and biased even for Gaussian data.
"""

from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.diffusion.shapes import expand_like
from langevin.guidance.covariance import covariance
from langevin.guidance.operators import Operator
from langevin.guidance.solve import conjugate_gradient


class PiGDM(Denoiser):
    """A denoiser pulled towards what was measured.

    Args:
        operator: A.
        y: the measurement, (B, ...) or (1, ...) for the whole batch.
        std: of the measurement's noise, >= 0.
        iterations: of the conjugate gradient for (std^2 + r^2 A A^T)^-1; one is enough for a mask.
    """

    y: Tensor

    def __init__(self, denoiser: Denoiser, operator: Operator, y: Tensor, std: float, *, iterations: int = 5) -> None:
        super().__init__()
        self.denoiser, self.operator, self.std, self.iterations = denoiser, operator, float(std), iterations
        self.register_buffer("y", y, persistent=False)
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        A, var = self.operator, self.std**2
        x0_hat, cov = covariance(self.denoiser, x_t, t, cond)
        misfit = self.y.to(x_t) - A(x0_hat)
        alpha, sigma = self.process.schedule.alpha(t), self.process.schedule.sigma(t)
        r2 = expand_like(sigma.square() / (alpha.square() + sigma.square()), misfit)
        u = conjugate_gradient(lambda v: var * v + r2 * A(A.transpose(v)), misfit, self.iterations)
        return Gaussian(x0_hat + cov(A.transpose(u)))

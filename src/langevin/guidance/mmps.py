"""Posterior sampling by moment matching: Rozet et al., "Learning Diffusion Priors from Observations by EM", 2024, section 4.

For y = A x0 + std eps, with p(x0 | x_t) taken for Gaussian with the denoiser's mean and its true covariance V:

    E[x0 | x_t, y] = x0_hat + V A^T (std^2 + A V A^T)^-1 (y - A x0_hat),   V = sigma^2 / alpha d x0_hat / d x_t

Exact for Gaussian data. The system is solved by conjugate gradients; each iteration is one backward pass.
"""

from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.guidance.covariance import covariance
from langevin.guidance.operators import Operator
from langevin.guidance.solve import conjugate_gradient


class MMPS(Denoiser):
    """The denoiser of x0 given what was measured of it.

    Args:
        operator: A.
        y: the measurement, (B, ...) or (1, ...) for the whole batch.
        std: of the measurement's noise, >= 0.
        iterations: of the conjugate gradient; more than the measurement has dimensions are of no use.
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
        u = conjugate_gradient(lambda v: var * v + A(cov(A.transpose(v))), self.y.to(x_t) - A(x0_hat), self.iterations)
        return Gaussian(x0_hat + cov(A.transpose(u)))

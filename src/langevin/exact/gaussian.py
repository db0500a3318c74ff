"""Data from one Gaussian: x0 ~ N(m, C), C = U diag(l) U^T. Then x_t ~ N(alpha m, alpha^2 C + sigma^2), and

    E[x0 | x_t]   = m + U diag(alpha l / k) U^T (x_t - alpha m),   k = alpha^2 l + sigma^2
    Cov[x0 | x_t] = U diag(sigma^2 l / k) U^T

Both ends are finite: at sigma = 0 the mean is x_t and the covariance 0, at alpha = 0 they are m and C.
"""

import math

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, GaussianDiffusion
from langevin.rng import Noise


class GaussianDenoiser(Denoiser):
    """The linear, optimal denoiser of Gaussian data.

    Args:
        process: whose schedule relates x_t to x0.
        mean: (*shape) of one sample.
        std: () or (*shape), all > 0: independent entries.
        covariance: (D, D) over the D entries of a flattened sample, positive definite. Give this or `std`.

    Computes in float64 and answers in the dtype of x_t. The posterior's variance is the diagonal of the exact one.
    """

    mean: Tensor
    eigenvalues: Tensor
    basis: Tensor | None

    def __init__(
        self, process: GaussianDiffusion, mean: Tensor, std: Tensor | None = None, *, covariance: Tensor | None = None
    ) -> None:
        super().__init__()
        if (std is None) == (covariance is None):
            raise ValueError("give either std or covariance")
        self.process: GaussianDiffusion = process
        mean, basis = torch.as_tensor(mean).double(), None
        if covariance is None:
            values = torch.as_tensor(std).double().expand_as(mean).flatten().square()
        else:
            values, basis = torch.linalg.eigh(torch.as_tensor(covariance).double())
        if not bool((values > 0).all()):
            raise ValueError("std must be positive, covariance positive definite")
        self.register_buffer("mean", mean)
        self.register_buffer("eigenvalues", values)
        self.register_buffer("basis", basis)

    def _along(self, x: Tensor) -> Tensor:
        """(B, D) coordinates of x (B, *shape) in the eigenbasis."""
        flat = x.flatten(1)
        return flat if self.basis is None else flat @ self.basis

    def _back(self, z: Tensor) -> Tensor:
        """(B, *shape) from coordinates (B, D)."""
        flat = z if self.basis is None else z @ self.basis.T
        return flat.reshape(len(z), *self.mean.shape)

    def _coefficients(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, sigma^2 and k = alpha^2 l + sigma^2, to meet z (B, D)."""
        alpha, sigma = self.process.coefficients(t, z)
        return alpha, sigma.square(), alpha.square() * self.eigenvalues + sigma.square()

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Gaussian:
        x = x_t.to(self.mean.dtype)
        alpha, _ = self.process.coefficients(t, x)
        z = self._along(x - alpha * self.mean)
        alpha, noise_var, k = self._coefficients(z, t)
        mean = self.mean + self._back(alpha * self.eigenvalues / k * z)
        var = (noise_var * self.eigenvalues / k).expand_as(z)
        if self.basis is not None:
            var = var @ self.basis.square().T
        return Gaussian(mean.to(x_t.dtype), var.reshape(mean.shape).to(x_t.dtype))

    def log_prob(self, x_t: Tensor, t: Tensor | float = 0.0) -> Tensor:
        """(B,) nats: log density of x_t (B, *shape) at time t; of the data at t = 0."""
        x, t = x_t.to(self.mean.dtype), torch.as_tensor(t, dtype=torch.float64)
        alpha, _ = self.process.coefficients(t, x)
        z = self._along(x - alpha * self.mean)
        _, _, k = self._coefficients(z, t)
        return -0.5 * (z.square() / k + torch.log(2 * math.pi * k)).sum(1)

    def sample(self, num: int, noise: Noise) -> Tensor:
        """(num, *shape) data in float64."""
        z = noise(self.eigenvalues.new_empty(num, len(self.eigenvalues)))
        return self.mean + self._back(self.eigenvalues.sqrt() * z)


def diagonal(process: GaussianDiffusion, data: Tensor) -> GaussianDenoiser:
    """The denoiser of independent Gaussian entries with the mean and standard deviation of data (N, *shape), N > 1."""
    data = data.double()
    return GaussianDenoiser(process, data.mean(0), data.std(0, correction=0).clamp(min=1e-12))


def full(process: GaussianDiffusion, data: Tensor, ridge: float = 1e-9) -> GaussianDenoiser:
    """The denoiser of the Gaussian with the mean and covariance of data (N, *shape); `ridge` is added to the diagonal.

    No linear denoiser is better on these data.
    """
    data = data.double()
    centred = (data - data.mean(0)).flatten(1)
    covariance = centred.T @ centred / len(data) + ridge * torch.eye(centred.shape[1], dtype=torch.float64)
    return GaussianDenoiser(process, data.mean(0), covariance=covariance)

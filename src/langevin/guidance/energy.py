"""Guidance by an energy or a negative reward: samples of lower energy become likelier, p(x) exp(-scale E(x)) roughly.

    of the clean estimate   x0_hat - scale Cov[x0 | x_t] grad E(x0_hat)        through the denoiser (Bansal et al. 2023)
    of x_t                  x0_hat - scale sigma^2 / alpha grad E(x_t, t)      (Dhariwal & Nichol 2021; Lu et al. 2023)

The second is exact where E(x_t, t) = -log E[exp(-E(x0)) | x_t]; the first takes E at the mean instead, which is right to
first order in the posterior's spread.
"""

from collections.abc import Callable

from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.guidance.covariance import covariance, gradient, lever

Measure = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""(x (B, ...), t, cond) -> (B,) nats, differentiable in x; each sample's own, whatever its batch."""


class Energy(Denoiser):
    """A denoiser pushed to lower energy.

    Args:
        energy: of the clean estimate, or of x_t at t where `noisy`.
        scale: 0 changes nothing; negative raises the energy.
        noisy: whether the energy understands x_t.
    """

    def __init__(self, denoiser: Denoiser, energy: Measure, scale: float = 1.0, *, noisy: bool = False) -> None:
        super().__init__()
        self.denoiser, self.energy, self.scale, self.noisy = denoiser, energy, float(scale), noisy
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        if self.scale == 0:
            return self.denoiser(x_t, t, cond)
        if self.noisy:
            x0_hat = self.denoiser(x_t, t, cond).mean
            return Gaussian(x0_hat - self.scale * lever(self.process, t, x_t) * self._gradient(x_t, t, cond))
        x0_hat, cov = covariance(self.denoiser, x_t, t, cond)
        return Gaussian(x0_hat - self.scale * cov(self._gradient(x0_hat, t, cond)))

    def _gradient(self, x: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        return gradient(lambda x: self.energy(x, t, cond), x)

"""x_t = alpha_t x0 + sigma_t eps.

The chain step from s to t > s and the reverse of it, given x0 (Kingma et al. 2021, appendix A; DDPM eq. 7 is s = t - 1/T):

    alpha_ts = alpha_t / alpha_s,   sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2
    q(x_t | x_s) = N(alpha_ts x_s, sigma_ts^2)
    q(x_s | x_t, x0) = N(alpha_ts sigma_s^2 / sigma_t^2 x_t + alpha_s sigma_ts^2 / sigma_t^2 x0, sigma_s^2 sigma_ts^2 / sigma_t^2)

No division by alpha_t or sigma_s: both ends stay finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.posterior import Gaussian, Posterior
from langevin.diffusion.process.base import Process
from langevin.diffusion.schedules.base import Schedule
from langevin.diffusion.shapes import expand_like, sum_flat
from langevin.rng import Noise


@dataclass(frozen=True)
class GaussianDiffusion(Process):
    """The Gaussian process of a schedule."""

    schedule: Schedule

    def prior(
        self,
        shape: Sequence[int],
        noise: Noise,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """N(0, sigma_1^2): exact where alpha_1 = 0, else as near as alpha_1 is small."""
        x = noise(torch.empty(tuple(shape), dtype=dtype, device=device))
        return x * self.schedule.sigma(torch.ones((), dtype=torch.float64)).to(dtype)

    def coefficients(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t), shaped to meet x."""
        return expand_like(self.schedule.alpha(t), x), expand_like(self.schedule.sigma(t), x)

    def step_coefficients(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_ts, sigma_ts^2) of the chain step from s to t."""
        # sigma_t^2 (1 - snr_t / snr_s), where the bracket does not cancel
        kept = torch.expm1(self.schedule.log_snr(t) - self.schedule.log_snr(s))
        return self.schedule.alpha(t) / self.schedule.alpha(s), -kept * self.schedule.sigma(t).square()

    def corrupt(self, x: Tensor, t: Tensor, noise: Noise, *, s: Tensor | None = None) -> Tensor:
        if s is None:
            alpha, sigma = self.coefficients(t, x)
            return alpha * x + sigma * noise(x)
        alpha_ts, var_ts = self.step_coefficients(t, s)
        return expand_like(alpha_ts, x) * x + expand_like(var_ts.sqrt(), x) * noise(x)

    def reverse(self, q: Posterior, x_t: Tensor, t: Tensor, s: Tensor) -> Gaussian:
        if not isinstance(q, Gaussian):
            raise TypeError(f"a Gaussian process reverses a Gaussian posterior, not a {type(q).__name__}")
        alpha_ts, var_ts = self.step_coefficients(t, s)
        var_s, var_t = self.schedule.sigma(s).square(), self.schedule.sigma(t).square()
        gain = expand_like(self.schedule.alpha(s) * var_ts / var_t, x_t)
        mean = expand_like(alpha_ts * var_s / var_t, x_t) * x_t + gain * q.mean
        return Gaussian(mean, q.reverse_var(expand_like(var_s * var_ts / var_t, x_t), gain))

    def nll_rate(self, q: Posterior, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """-1/2 d snr/dt |x0 - x0_hat|^2: Kingma et al. 2021, eq. 13-15."""
        rate = -0.5 * self.schedule.log_snr(t).exp() * self.schedule.log_snr_rate(t)
        return rate.to(x0.device, x0.dtype) * sum_flat((x0 - q.mean).square())

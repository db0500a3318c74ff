"""Data from a mixture: x0 ~ sum_k w_k N(m_k, diag s_k^2). Then x_t ~ sum_k w_k N(alpha m_k, k_k), k_k = alpha^2 s_k^2 + sigma^2,

    p(k | x_t)     proportional to w_k N(x_t; alpha m_k, k_k)
    E[x0 | x_t, k] = m_k + alpha s_k^2 / k_k (x_t - alpha m_k),   Var[x0 | x_t, k] = sigma^2 s_k^2 / k_k

and the moments of x0 given x_t follow by the laws of total expectation and variance. Both ends are finite.
"""

import math

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, GaussianDiffusion
from langevin.rng import Noise


class MixtureDenoiser(Denoiser):
    """The optimal denoiser of a Gaussian mixture.

    Args:
        process: whose schedule relates x_t to x0.
        weights: (K,) positive; normalised here.
        means: (K, *shape).
        stds: (K,) for isotropic or (K, *shape) for diagonal components; all > 0.

    With cond["label"], (B,) int64, the data of sample i are the component of that index; K, or no such key: all of them.
    Computes in float64 and answers in the dtype of x_t. The posterior's mean and variance (entry by entry) are exact; its
    shape is taken for Gaussian.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(self, process: GaussianDiffusion, weights: Tensor, means: Tensor, stds: Tensor) -> None:
        super().__init__()
        self.process: GaussianDiffusion = process
        weights, means, stds = (torch.as_tensor(a).double() for a in (weights, means, stds))
        if stds.ndim == 1:
            stds = stds.reshape(-1, *(1,) * (means.ndim - 1))
        if not (len(weights) == len(means) == len(stds) and bool((weights > 0).all()) and bool((stds > 0).all())):
            raise ValueError("a mixture has K positive weights, K means and K positive stds")
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("means", means)
        self.register_buffer("variances", stds.square().expand_as(means).clone())

    def _given(self, x: Tensor, t: Tensor, cond: Condition | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x - alpha m_k and k_k (B, K, *shape), log w_k N(x; ...) (B, K), alpha shaped to meet the first."""
        alpha, sigma = self.process.coefficients(t, x[:, None])
        centred = x[:, None] - alpha * self.means
        spread = (alpha.square() * self.variances + sigma.square()).expand_as(centred)
        log_each = -0.5 * (centred.square() / spread + torch.log(2 * math.pi * spread)).flatten(2).sum(2)
        log_weights = self.log_weights
        if cond is not None and "label" in cond:
            label = cond["label"].to(x.device)[:, None]
            number = torch.arange(len(log_weights), device=x.device)
            chosen = torch.where(number == label, 0.0, -torch.inf)
            log_weights = torch.where(label == len(log_weights), log_weights, chosen)
        return centred, spread, log_weights + log_each, alpha

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Gaussian:
        x = x_t.to(self.means.dtype)
        centred, spread, log_joint, alpha = self._given(x, t, cond)
        gain = self.variances / spread
        means = self.means + alpha * gain * centred
        _, sigma = self.process.coefficients(t, centred)
        p = log_joint.softmax(1).reshape(*log_joint.shape, *(1,) * (x.ndim - 1))
        mean = (p * means).sum(1)
        var = (p * (sigma.square() * gain + (means - mean[:, None]).square())).sum(1)
        return Gaussian(mean.to(x_t.dtype), var.to(x_t.dtype))

    def log_prob(self, x_t: Tensor, t: Tensor | float = 0.0, cond: Condition | None = None) -> Tensor:
        """(B,) nats: log density of x_t (B, *shape) at time t; of the data at t = 0."""
        t = torch.as_tensor(t, dtype=torch.float64)
        return self._given(x_t.to(self.means.dtype), t, cond)[2].logsumexp(1)

    def cdf(self, x_t: Tensor, t: Tensor | float = 0.0) -> Tensor:
        """(B,) P(x_t' <= x_t) at time t, for samples of one entry, x_t (B, 1)."""
        x, t = x_t.to(self.means.dtype), torch.as_tensor(t, dtype=torch.float64)
        centred, spread, _, _ = self._given(x, t, None)
        each = torch.special.ndtr(centred / spread.sqrt()).flatten(1)
        return torch.mv(each, self.log_weights.exp())

    def sample(self, num: int, noise: Noise) -> Tensor:
        """(num, *shape) data in float64."""
        size = self.means[0].numel()
        draw = noise(self.means.new_empty(num, 1 + size))
        edges = self.log_weights.exp().cumsum(0)[:-1]
        k = torch.searchsorted(edges, torch.special.ndtr(draw[:, 0]).contiguous())
        z = draw[:, 1:].reshape(num, *self.means.shape[1:])
        return self.means[k] + self.variances[k].sqrt() * z

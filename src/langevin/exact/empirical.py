"""Data from a finite set: x0 is one of N points p_i. Then x_t ~ mean over i of N(alpha p_i, sigma^2), and

    p(i | x_t) = softmax over i of -|x_t - alpha p_i|^2 / (2 sigma^2)
    E[x0 | x_t] = sum_i p(i | x_t) p_i

This is the minimiser of every denoising loss on a training set. It generates nothing new: as sigma falls, trajectories end
in the training points. How far a network is from it tells what the network has generalised (or failed to fit).
"""

import math

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, GaussianDiffusion
from langevin.rng import Noise


class EmpiricalDenoiser(Denoiser):
    """The optimal denoiser of a set of points.

    Args:
        process: whose schedule relates x_t to x0.
        points: (N, *shape). Computed in their dtype, float64 for exactness; the answer is in the dtype of x_t.
        chunk: samples of a batch handled at once; (chunk, N) distances are held.

    Differences are squared, not expanded into products, so that nothing cancels at small sigma. At sigma = 0 the answer is
    the nearest point (the mean of the nearest, where there are several).
    """

    points: Tensor

    def __init__(self, process: GaussianDiffusion, points: Tensor, *, chunk: int = 64) -> None:
        super().__init__()
        self.process: GaussianDiffusion = process
        self.chunk = chunk
        self.register_buffer("points", torch.as_tensor(points))

    def _squares(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """|x - alpha p_i|^2 (B, N) and sigma^2 (B, 1)."""
        flat, points = x.flatten(1), self.points.flatten(1)
        alpha, sigma = (a.expand(len(x), 1) for a in self.process.coefficients(t, flat))
        rows = [flat] if t.ndim == 0 else list(flat[:, None])  # those that share their scaled points
        distances = [
            torch.cdist(x, a * points, compute_mode="donot_use_mm_for_euclid_dist")
            for x, a in zip(rows, alpha, strict=False)
        ]
        return torch.cat(distances).square(), sigma.square()

    def weights(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, N) p(i | x_t)."""
        squares, var = self._squares(x_t.to(self.points.dtype), t)
        above = squares - squares.min(1, keepdim=True).values
        return torch.softmax(-above / (2 * var).clamp(min=torch.finfo(var.dtype).tiny), 1)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Gaussian:
        means, variances, points = [], [], self.points.flatten(1)
        centre = points.mean(0)
        away = points - centre
        for i in range(0, len(x_t), self.chunk):
            p = self.weights(x_t[i : i + self.chunk], t if t.ndim == 0 else t[i : i + self.chunk])
            mean = p @ away
            means.append(centre + mean)
            variances.append((p @ away.square() - mean.square()).clamp(min=0))
        mean, var = (torch.cat(a).reshape(x_t.shape).to(x_t.dtype) for a in (means, variances))
        return Gaussian(mean, var)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B,) nats: log density of x_t (B, *shape) at time t > 0."""
        squares, var = self._squares(x_t.to(self.points.dtype), torch.as_tensor(t, dtype=torch.float64))
        size = self.points[0].numel()
        log_kernel = -0.5 * squares / var - 0.5 * size * torch.log(2 * math.pi * var)
        return log_kernel.logsumexp(1) - math.log(len(self.points))

    def sample(self, num: int, noise: Noise) -> Tensor:
        """(num, *shape) points of the set, drawn with equal probability."""
        u = torch.special.ndtr(noise(self.points.new_empty(num, 1, dtype=torch.float64))[:, 0])
        return self.points[(u * len(self.points)).long().clamp(max=len(self.points) - 1)]

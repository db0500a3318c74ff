"""What a gradient through the denoiser is: by Tweedie's formula of second order

    Cov[x0 | x_t] = sigma^2 / alpha d x0_hat / d x_t

so that x0_hat moves by Cov g where the log density of x0_hat has the gradient g, and by sigma^2 / alpha g where that of x_t
has. Where alpha = 0, x_t says nothing and there is nothing to differentiate: the shift is 0 there.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Process
from langevin.diffusion.shapes import expand_like


def lever(process: Process, t: Tensor, x: Tensor) -> Tensor:
    """sigma^2 / alpha, 0 where alpha is 0, shaped to meet x."""
    alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
    return expand_like(torch.where(alpha > 0, sigma.square() / alpha, 0.0), x)


def gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """d f / d x, each sample's own, of f: (B, ...) -> (B,)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(f(x).sum(), x)[0]


def covariance(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """(x0_hat (B, ...), v -> Cov v); each product is one backward pass."""
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        x0_hat = denoiser(x, t, cond).mean
    scale = lever(denoiser.process, t, x_t)

    def product(v: Tensor) -> Tensor:
        if not x0_hat.requires_grad:  # an answer that does not depend on x_t is sure
            return torch.zeros_like(v)
        (pulled,) = torch.autograd.grad(x0_hat, x, v, retain_graph=True, materialize_grads=True)
        return scale * pulled

    return x0_hat.detach(), product

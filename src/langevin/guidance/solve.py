"""Symmetric linear systems, one a sample: the conjugate gradient (Hestenes & Stiefel 1952)."""

from collections.abc import Callable

import torch
from torch import Tensor

from langevin.guidance.operators import dot


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """x with product(x) = b, both (B, ...), product positive semi-definite; exact after as many iterations as dimensions.

    A sample stops where its residual vanishes or where the product turns out not to be positive along its direction.
    """
    x, r, p = torch.zeros_like(b), b, b
    rr = start = dot(r, r)
    least = start * torch.finfo(b.dtype).eps ** 2
    for _ in range(iterations):
        q = product(p)
        curve = dot(p, q)
        goes = (rr > least) & (curve > 0)
        step = torch.where(goes, rr / torch.where(goes, curve, 1.0), 0.0)
        x, r = x + step * p, r - step * q
        before, rr = rr, torch.where(goes, dot(r, r), 0.0)
        p = r + torch.where(goes, rr / torch.where(goes, before, 1.0), 0.0) * p
    return x

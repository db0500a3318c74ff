"""Muon: momentum whose matrices are made orthogonal (Jordan et al., "Muon: An optimizer for hidden layers in neural
networks", 2024); everything that is no hidden matrix follows AdamW.

    m <- mu m + (1 - mu) g,   u = mu m + (1 - mu) g,   w <- w - lr (0.2 sqrt(max(rows, columns)) orthogonal(u) + decay w)

The factor gives the update AdamW's size (Liu et al., "Muon is Scalable for LLM Training", 2025, eq. 4), so that one learning
rate serves both. A kernel (out, in, *size) is taken for the matrix (out, in * size) that it multiplies a patch by, and that of a
transposed convolution, (in, out, *size), likewise for (in, out * size). Of a matrix that is cut over processes, momenta stay
cut; what is to be made orthogonal is put together on each of them.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from langevin.training.distributed import full, is_shard, like
from langevin.training.optimizers.adamw import AdamW as _AdamW

A, B, C = 3.4445, -4.7750, 2.0315


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """(..., rows, columns) with the singular vectors of g and singular values of about 1, most between 0.7 and 1.2.

    x <- (A + B x x' + C (x x')^2) x, from g over its norm. All iterates are polynomials of x x' times x and commute, so the
    iteration runs on the small matrix x x' alone; rounding grows twelvefold a step there, so products that a device would round
    to less than float32 are taken in float64. Singular values below a thousandth of g's norm stay smaller than 1.
    """
    if torch.get_float32_matmul_precision() != "highest":
        return orthogonal_in(g.double(), steps).to(g)
    return orthogonal_in(g, steps)


def orthogonal_in(g: Tensor, steps: int) -> Tensor:
    """The same in g's own precision."""
    tall = g.shape[-2] > g.shape[-1]
    g = g.mT if tall else g
    x = g / g.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    gram, product = x @ x.mT, x.new_zeros(())
    eye = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    for k in range(steps):
        p = A * eye + B * gram + C * (gram @ gram)
        product = p @ product if k else p
        if k < steps - 1:
            gram = p @ gram @ p
    found: Tensor = product @ x
    return found.mT if tall else found


class Muon(_AdamW):
    """Groups that are `hidden` follow Muon, others AdamW.

    Args:
        lr, weight_decay: of both.
        betas, eps: of AdamW.
        momentum: mu.
        steps: of the iteration that makes a matrix orthogonal, 1 to 6.
    """

    by_kind: ClassVar[bool] = True

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        steps: int = 5,
    ) -> None:
        if not 0 <= momentum < 1 or not 1 <= steps <= 6:
            raise ValueError(f"momentum lies in [0, 1) and steps in 1 to 6, not {momentum} and {steps}")
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.momentum, self.steps = momentum, steps

    def __setstate__(self, state: dict[str, Any]) -> None:
        torch.optim.Optimizer.__setstate__(self, state)  # AdamW's would look for its own memory in every parameter

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group.get("hidden")]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"] if group.get("hidden") else ():
                if p.grad is not None:
                    alike[p.shape].append(p)
            for same in alike.values():
                self._move(same, group["lr"], group["weight_decay"])
        return loss

    def _move(self, same: list[Tensor], lr: float, weight_decay: float) -> None:
        """One step of matrices of one shape."""
        grads = [p.grad for p in same if p.grad is not None]
        for p in same:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        memory = [self.state[p]["momentum_buffer"] for p in same]
        torch._foreach_lerp_(memory, grads, 1 - self.momentum)
        parts = {str(k): u for k, u in enumerate(torch._foreach_lerp(grads, memory, self.momentum))}
        ahead = torch.stack(list(full(parts, everywhere=True).values())).flatten(2)
        scale = 0.2 * max(ahead.shape[-2:]) ** 0.5
        torch._foreach_mul_(same, 1 - lr * weight_decay)
        whole = orthogonal(ahead, self.steps).view(-1, *same[0].shape).unbind()
        updates = [like(p, update) if is_shard(p) else update for p, update in zip(same, whole, strict=True)]
        torch._foreach_add_(same, updates, alpha=-lr * scale)

"""Lion: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, algorithm 2.

    w <- w - lr (sign(beta1 m + (1 - beta1) g) + weight_decay w),   m <- beta2 m + (1 - beta2) g

One number a weight to remember. Every weight moves by lr at every step, so lr is about a tenth of AdamW's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT


class Lion(torch.optim.Optimizer):
    """Args: lr, the distance of one step; betas, of the step and of the memory; weight_decay, decoupled."""

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas lie in [0, 1), not {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            grads = [p.grad for p in moved if p.grad is not None]
            for p in moved:
                if not self.state[p]:
                    self.state[p]["exp_avg"] = torch.zeros_like(p)
            memory = [self.state[p]["exp_avg"] for p in moved]
            beta1, beta2 = group["betas"]
            update = torch._foreach_lerp(memory, grads, 1 - beta1)
            torch._foreach_sign_(update)
            torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(moved, update, alpha=-group["lr"])
            torch._foreach_lerp_(memory, grads, 1 - beta2)
        return loss

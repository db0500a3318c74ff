"""Conditions that a guidance holds for every batch it will meet."""

from torch import Tensor

from langevin.diffusion import Condition


def meet(cond: Condition | None, x: Tensor) -> Condition | None:
    """`cond` on the device of x (B, ...), its values (1, ...) or (B, ...) as (B, ...); None where there is nothing in it."""
    if not cond:
        return None
    return {name: value.to(x.device).expand(len(x), *value.shape[1:]) for name, value in cond.items()}

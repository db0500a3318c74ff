"""One way to let a number per sample meet a tensor of samples."""

from torch import Tensor


def beside(a: Tensor, x: Tensor) -> Tensor:
    """`a` in the dtype and on the device of `x`. What comes from the CPU is sent on its way, and nobody waits for it."""
    return a.to(x.dtype).to(x.device, non_blocking=a.device.type == "cpu")


def expand_like(a: Tensor, x: Tensor) -> Tensor:
    """`a` () or (B,) in the dtype of `x` (B, ...), shaped (B, 1, ..., 1) so that it broadcasts over x."""
    return a.to(x.dtype) if a.ndim == 0 else beside(a, x).reshape(-1, *(1,) * (x.ndim - 1))


def mean_flat(x: Tensor) -> Tensor:
    """(B, ...) -> (B,): the mean over everything but the batch."""
    return x.flatten(1).mean(1)


def sum_flat(x: Tensor) -> Tensor:
    """(B, ...) -> (B,): the sum over everything but the batch."""
    return x.flatten(1).sum(1)

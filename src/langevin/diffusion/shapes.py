"""One way to let a number per sample meet a tensor of samples."""

from torch import Tensor


def expand_like(a: Tensor, x: Tensor) -> Tensor:
    """`a` () or (B,) in the dtype of `x` (B, ...), shaped (B, 1, ..., 1) so that it broadcasts over x."""
    a = a.to(x.dtype)
    return a if a.ndim == 0 else a.to(x.device).reshape(-1, *(1,) * (x.ndim - 1))


def mean_flat(x: Tensor) -> Tensor:
    """(B, ...) -> (B,): the mean over everything but the batch."""
    return x.flatten(1).mean(1)


def sum_flat(x: Tensor) -> Tensor:
    """(B, ...) -> (B,): the sum over everything but the batch."""
    return x.flatten(1).sum(1)

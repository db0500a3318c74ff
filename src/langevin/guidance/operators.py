"""What is measured of x0: linear operators y = A x, each with its transpose."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.shapes import sum_flat


class Operator(ABC):
    """A frozen dataclass. For every x and y:  <A x, y> = <x, A^T y>."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x (B, ...) of x (B, *shape)."""

    @abstractmethod
    def transpose(self, y: Tensor) -> Tensor:
        """A^T y (B, *shape) of y (B, ...)."""


@dataclass(frozen=True, eq=False)
class Mask(Operator):
    """Some entries are seen: y is (B, M), those entries in order. `seen` is bool, shaped like a sample."""

    seen: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, self.seen.to(x.device)]

    def transpose(self, y: Tensor) -> Tensor:
        x = y.new_zeros(len(y), *self.seen.shape)
        x[:, self.seen.to(y.device)] = y
        return x


@dataclass(frozen=True, eq=False)
class Matrix(Operator):
    """y = x A^T on flattened samples: `rows` is A, (M, D); y is (B, M). `shape` is that of a sample, (D,) if not given."""

    rows: Tensor
    shape: tuple[int, ...] = (-1,)

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.rows.to(x).T

    def transpose(self, y: Tensor) -> Tensor:
        return (y @ self.rows.to(y)).reshape(len(y), *self.shape)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(B, 1, ..., 1): the inner product of each sample."""
    return sum_flat(a * b).reshape(-1, *(1,) * (a.ndim - 1))

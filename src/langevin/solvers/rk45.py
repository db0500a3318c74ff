"""Dormand and Prince's pair of orders 5 and 4, 1980, with steps by tolerance: the `RK45` of SciPy and of Song et al. 2021."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from langevin.diffusion.shapes import expand_like
from langevin.solvers.adaptive import Adaptive, Slope

STAGES: tuple[tuple[float, ...], ...] = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""The last one is the solution of order 5."""
LOW = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)


@dataclass(frozen=True)
class RK45(Adaptive):
    """Fifth order; six evaluations a step that it tries."""

    order = 5
    control: ClassVar[float] = 5.0

    rtol: float = 1e-3
    atol: float = 1e-3

    def attempt(self, slope: Slope, lam: Tensor, y: Tensor, k: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        step, slopes = expand_like(h, y), [k]

        def after(weights: tuple[float, ...]) -> Tensor:
            total = slopes[0] * weights[0]
            for weight, k in zip(weights[1:], slopes[1:], strict=True):
                if weight:
                    total.add_(k, alpha=weight)
            return total.mul_(step).add_(y)

        for weights in STAGES:
            high = after(weights)
            slopes.append(slope(lam + h * sum(weights), high))
        return high, after(LOW), slopes[-1]

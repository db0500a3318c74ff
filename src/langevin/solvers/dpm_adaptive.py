"""DPM-Solver-12 and -23: Lu et al. 2022, appendix C, with k-diffusion's choice of steps (`sample_dpm_adaptive`).

The stages are those of `exponential` in noise, z = (x - alpha x0_hat) / sigma, each sample with a step h of its own.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from langevin.diffusion.shapes import expand_like
from langevin.solvers.adaptive import Adaptive, Slope


@dataclass(frozen=True)
class DPMAdaptive(Adaptive):
    """Third order; three evaluations a step that it tries."""

    order = 3
    control: ClassVar[float] = 3.0

    def attempt(self, slope: Slope, lam: Tensor, y: Tensor, k: Tensor, h: Tensor) -> tuple[Tensor, Tensor, None]:
        def column(a: Tensor) -> Tensor:
            return expand_like(a, y)

        def move(share: float, *blend: tuple[Tensor, Tensor]) -> Tensor:
            """y after share h: y + r_t (e^-(share h) - 1) (z + sum of c (z_i - z)), where r_t z = -k."""
            total = k
            for c, difference in blend:
                total = total - column(c) * difference
            return y - column(torch.expm1(-share * h)) * total

        def away(share: float, y_i: Tensor) -> Tensor:
            """r_t (z_i - z), found after share h."""
            return k - column(torch.exp(share * h)) * slope(lam + share * h, y_i)

        def weight(share: float) -> Tensor:
            """1 / k - 1 / (e^k - 1), k = share h, which is not 0 but for samples at rest."""
            k = torch.where(h == 0, 1.0, share * h)
            return torch.where(k.abs() < 1e-2, 0.5 - k / 12 + k**3 / 720, 1 / k - 1 / torch.expm1(k))

        first = away(1 / 3, move(1 / 3))
        second = away(2 / 3, move(2 / 3, (2 * weight(2 / 3), first)))
        half = torch.full_like(h, 1.5)  # 1 / (2 r), r = 1/3
        return move(1.0, (1.5 * weight(1.0), second)), move(1.0, (half, first)), None

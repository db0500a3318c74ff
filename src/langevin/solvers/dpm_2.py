"""DPM-Solver-2: Lu et al. 2022, algorithm 1; k-diffusion's `dpm_2`, and `dpm_2_ancestral` with eta = 1.

A step by the noise found half way in log(alpha / sigma): y_s = y_t + (r_s - r_t) z_middle with y = x / alpha, r = sigma / alpha.
"""

from dataclasses import dataclass
from typing import ClassVar

from langevin.solvers.exponential import Answer, SingleStep


@dataclass(frozen=True)
class DPM2(SingleStep):
    """Second order, two evaluations a step (one at either end)."""

    order = 2
    evaluations = 2
    variants = ({}, {"eta": 1.0})
    nodes: ClassVar[tuple[float, ...]] = (0.5,)
    answer: ClassVar[Answer] = "noise"

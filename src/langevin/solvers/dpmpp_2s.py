"""DPM-Solver++(2S): Lu et al. 2022 (DPM-Solver++), algorithm 1; k-diffusion's `dpmpp_2s_ancestral` with eta = 1."""

from dataclasses import dataclass
from typing import ClassVar

from langevin.solvers.exponential import SingleStep


@dataclass(frozen=True)
class DPMpp2S(SingleStep):
    """Second order, two evaluations a step (one at either end)."""

    order = 2
    evaluations = 2
    variants = ({}, {"eta": 1.0})
    nodes: ClassVar[tuple[float, ...]] = (0.5,)

"""DPM-Solver++(3S): Lu et al. 2022 (DPM-Solver++), appendix, at a third and two thirds of the way in log(alpha / sigma)."""

from dataclasses import dataclass
from typing import ClassVar

from langevin.solvers.exponential import SingleStep


@dataclass(frozen=True)
class DPMpp3S(SingleStep):
    """Third order, three evaluations a step (one at either end)."""

    order = 3
    evaluations = 3
    nodes: ClassVar[tuple[float, ...]] = (1 / 3, 2 / 3)

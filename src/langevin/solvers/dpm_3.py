"""DPM-Solver-3: Lu et al. 2022, algorithm 2, at a third and two thirds of the way in log(alpha / sigma)."""

from dataclasses import dataclass
from typing import ClassVar

from langevin.solvers.exponential import Answer, SingleStep


@dataclass(frozen=True)
class DPM3(SingleStep):
    """Third order, three evaluations a step (one at either end)."""

    order = 3
    evaluations = 3
    nodes: ClassVar[tuple[float, ...]] = (1 / 3, 2 / 3)
    answer: ClassVar[Answer] = "noise"

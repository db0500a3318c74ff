"""Euler's method in sigma / alpha on x / alpha, as in k-diffusion and diffusers: DDIM by another name."""

from dataclasses import dataclass
from typing import ClassVar

from langevin.solvers.exponential import SingleStep


@dataclass(frozen=True)
class Euler(SingleStep):
    """First order; `eta` > 0 is `euler_ancestral`."""

    nodes: ClassVar[tuple[float, ...]] = ()

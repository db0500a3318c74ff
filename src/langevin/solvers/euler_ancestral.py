"""Euler's method with fresh noise in each step, as in k-diffusion and diffusers.

At eta = 0 it is DDIM, at eta = 1 ancestral sampling with the variance of q(x_s | x_t, x0).
"""

from dataclasses import dataclass
from typing import ClassVar

from langevin.solvers.exponential import SingleStep


@dataclass(frozen=True)
class EulerAncestral(SingleStep):
    """First order."""

    nodes: ClassVar[tuple[float, ...]] = ()

    eta: float = 1.0

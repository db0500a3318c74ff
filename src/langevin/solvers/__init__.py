"""Solvers, one a file; found by listing this folder (`langevin.registry`). The one loop is `trajectory`."""

from langevin.solvers.base import Solver
from langevin.solvers.grids import Grid
from langevin.solvers.trajectory import Step, sample, trajectory

__all__ = ["Grid", "Solver", "Step", "sample", "trajectory"]

"""Which solver and grid are taken where none is named: a function of the number of evaluations alone.

`angle` on `scales`, of order 3 below 8 evaluations and 4 from there on; order p needs p - 1 steps to come to itself. The
scales .2 and 10 and the crowding were chosen once, for data of unit variance in which langevin's codecs hand data to networks,
on 33 exact mixtures in 2 to 64 dimensions with standard deviations .2 to 1; benchmarks/RESULTS.md has them beside other
mixtures that had no part in it. The last evaluation lies near sigma / alpha = .015 at 10 and .004 at 20: below that a network
says little, above it an exact denoiser would lose.
"""

from typing import Any

from langevin.solvers.angle import Angle
from langevin.solvers.base import Solver
from langevin.solvers.grids import Grid, Scales


def default(evaluations: int) -> tuple[Solver[Any], Grid]:
    """(solver, grid) for so many evaluations of the denoiser, one a step."""
    return Angle(order=3 if evaluations < 8 else 4), Scales()

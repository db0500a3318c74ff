"""Which solver and grid are taken where none is named: a function of the number of evaluations alone.

`angle` on `scales`, of order 3 below 8 evaluations and 4 from there on; order p needs p - 1 steps to come to itself. The
lower scale, .2, and the crowding were chosen once, for data of unit variance in which langevin's codecs hand data to networks,
on 33 exact mixtures in 2 to 64 dimensions with standard deviations .2 to 1. The upper scale, 20, is twice what serves those best:
what the pixels of a picture have in common is larger than their own spread, and a network for pictures of 28 x 28 ends half as far
from its fine solution with it. benchmarks/RESULTS.md has both, beside mixtures that had no part in it. The last evaluation
lies near sigma / alpha = .018 at 10 and .006 at 20: below that a network says little, above it an exact denoiser would lose.
"""

from typing import Any

from langevin.solvers.angle import Angle
from langevin.solvers.base import Solver
from langevin.solvers.grids import Grid, Scales


def default(evaluations: int) -> tuple[Solver[Any], Grid]:
    """(solver, grid) for so many evaluations of the denoiser, one a step."""
    return Angle(order=3 if evaluations < 8 else 4), Scales()

"""A network's size from the shape and number of the samples.

Chosen for training that is counted in minutes: there a held-out loss follows the number of steps more than the number of
parameters (benchmarks/RESULTS.md), so the network is small and works at half resolution and below. The lowest level has
so few positions that attention between all of them costs little. Pixels are told where they lie: a short run that has to find that out
from the borders spends its time on it.
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import Any

TINY = 144
"""Positions up to which a sample is worked on at full resolution."""
FINEST, PATCH = 400, 64
"""Positions of the finest level from which a patch doubles, as long as it holds no more than so many values."""
LOWEST = 100
"""Positions, at most, of the level that attends."""
FEW = 5000
"""Samples under which a network is narrower."""


def default_size(shape: Sequence[int], count: int, scale: float = 1.0) -> dict[str, Any]:
    """The arguments of a network for samples of this shape.

    Args:
        shape: (channels,) for vectors, else (channels, *spatial) with 1 to 3 spatial axes.
        count: number of samples to learn from.
        scale: of a U-Net's widths, for a larger or smaller budget than is usual.

    Returns:
        arguments of `UNet`, or of `MLP` for vectors.
    """
    channels, *spatial = shape
    if not spatial:
        return {"channels": channels, "width": 256 if count >= FEW else 128}
    dims, patch, levels = len(spatial), 1 if prod(spatial) <= TINY else 2, 2

    def positions(scale: int) -> int:
        return prod(ceil(n / scale) for n in spatial)

    while positions(patch) > FINEST and channels * (2 * patch) ** dims <= PATCH:
        patch *= 2
    while positions(patch * 2 ** (levels - 1)) > LOWEST:
        levels += 1
    width = (64 if count >= FEW else 48) // (1 if levels == 2 else 2)  # each level costs about the same
    unit = 16 if width % 16 == 0 else 8  # as processors count
    width = max(unit * round(scale * width / unit), 16)
    width = max(width, 32 * ceil(channels * patch**dims / 32))  # nothing of a patch is lost
    widths = [width * 2 ** min(i, 2) for i in range(levels)]
    given = {"channels": channels, "dims": dims, "patch": patch, "widths": widths, "attention": [levels - 1]}
    return given | {"coordinates": True}

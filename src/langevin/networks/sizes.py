"""A network's size from the shape and number of the samples."""

from collections.abc import Sequence
from typing import Any


def default_size(shape: Sequence[int], count: int) -> dict[str, Any]:
    """The arguments of a network for samples of this shape.

    Args:
        shape: (channels,) for vectors, else (channels, *spatial) with 1 to 3 spatial axes.
        count: number of samples to learn from.

    Returns:
        arguments of `UNet`, or of `MLP` for vectors.
    """
    channels, *spatial = shape
    if not spatial:
        return {"channels": channels}
    side = max(spatial)
    patch = 1 if side <= 12 else 2
    levels = 2
    while side / patch / 2 ** (levels - 1) > 8 and levels < 4:
        levels += 1
    width = 64 if count >= 2000 else 48
    widths = [width * min(2**i, 4) for i in range(levels)]
    return {"channels": channels, "dims": len(spatial), "patch": patch, "widths": widths, "attention": [levels - 1]}

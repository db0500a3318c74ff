"""Numbers that are not finite are never written where somebody could take them for a model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from langevin.errors import DivergedError

if TYPE_CHECKING:
    from torch import Tensor

NAMED = 5


def is_finite(value: "Tensor") -> bool:
    """Whether all numbers of a tensor are; a sum that is finite has no other terms, and is found in half the time."""
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def refuse_broken(tensors: Mapping[str, "Tensor"], *, where: str) -> None:
    """Raise DivergedError naming the tensors that hold nan or an infinity."""
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not is_finite(v)]
    if broken:
        more = f" and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
        raise DivergedError(
            f"weights that are not finite are not written: {', '.join(broken[:NAMED])}{more}",
            where=where,
            help="what was saved before is intact",
        )

"""Numbers that are not finite are never written where somebody could take them for a model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from langevin.errors import DivergedError

if TYPE_CHECKING:
    from torch import Tensor

NAMED = 5


def refuse_broken(tensors: Mapping[str, "Tensor"], *, where: str) -> None:
    """Raise DivergedError naming the tensors that hold nan or an infinity."""
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not bool(v.isfinite().all())]
    if broken:
        more = f" and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
        raise DivergedError(
            f"weights that are not finite are not written: {', '.join(broken[:NAMED])}{more}",
            where=where,
            help="what was saved before is intact",
        )

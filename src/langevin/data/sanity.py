"""What is sound item by item and wrong as a set: another scale, nothing that differs."""

from collections.abc import Iterator

import numpy as np

from langevin.data.dataset import Dataset
from langevin.errors import DataError
from langevin.words import counted

SCALE = 100.0
"""An item whose largest value is so many times that of the median item has another scale."""
LOOKED_AT = 256
_AT_ONCE = 4 << 20  # bytes


def remarks(dataset: Dataset) -> Iterator[str]:
    """Warnings, each with the item that it is about, in lines that a person reads."""
    if not len(dataset):
        return
    if dataset.items.dtype.kind == "f":
        yield from _scales(dataset)
    rows = np.linspace(0, len(dataset) - 1, min(len(dataset), LOOKED_AT)).astype(int)
    if len(dataset) > 1 and dataset.audit.exact_duplicates == len(dataset) - 1:
        yield "all items are one and the same picture: a model can only learn to repeat it"
    elif all(np.ptp(dataset.items[i], axis=(0, 1)).max() == 0 for i in rows.tolist()):
        yield f"{counted(len(rows), 'picture')} looked at, each of one colour all over: their colours are all there is to learn"


def refuse_constant(dataset: Dataset) -> None:
    """Raise DataError where every value of every item is the same: there is nothing to learn."""
    audit = dataset.audit
    if len(dataset) and len(audit.constant_channels) == audit.channels:
        values = ", ".join(f"{v:g}" for v in audit.low)
        all_of_them = "the only item is a" if len(dataset) == 1 else f"all {len(dataset):,} items are the same"
        raise DataError(
            f"{all_of_them} flat picture, {values} everywhere: there is nothing to learn",
            where=audit.source,
            help="look at how they were made: were they saved empty, or scaled to nothing?",
        )


def first_broken(item: np.ndarray) -> str:
    """Where an item (H, W, C) is not finite, in words."""
    places = np.argwhere(~np.isfinite(item))
    row, column, channel = (int(k) for k in places[0])
    more = f" and {counted(len(places) - 1, 'more value')}" if len(places) > 1 else ""
    where = f"row {row}, column {column}" + (f", channel {channel}" if item.shape[-1] > 1 else "")
    return f"{item[row, column, channel]} at {where}{more}"


def _scales(dataset: Dataset) -> Iterator[str]:
    step = max(1, _AT_ONCE // max(1, dataset.items[:1].nbytes))
    reach = np.concatenate(
        [np.abs(dataset.items[k : k + step]).max((1, 2, 3)).astype(np.float64) for k in range(0, len(dataset), step)]
    )
    middle = float(np.median(reach))
    for odd, how in (
        (np.flatnonzero(reach > SCALE * middle), "far beyond that of the others"),
        (np.flatnonzero((reach > 0) & (reach < middle / SCALE)), "far below that of the others"),
    ):
        if len(odd) and middle > 0:
            worst = int(odd[np.argmax(np.abs(np.log(reach[odd] / middle)))])
            yield (
                f"{counted(len(odd), 'item has', 'items have')} a scale {how}: {dataset.names[worst]} reaches {reach[worst]:g}, "
                f"half of all stay within {middle:g}"
            )
            return

"""A source and its decoded items make a dataset: columns, split, fingerprint, audit."""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from langevin.data import duplicates
from langevin.data.dataset import Audit, Dataset, Reject
from langevin.data.fit import Options
from langevin.data.gather import gather
from langevin.data.sources.base import Source
from langevin.errors import DataError, UsageError
from langevin.words import counted

# Entries that are no picture, or were left out on purpose: listed, but not held against the data.
_UNCOUNTED = frozenset(("LINK_LOOP", "UNREADABLE_FOLDER", "SKIPPED_SIZE"))


def dataset(
    source: Source,
    options: Options,
    *,
    allow_rejects: float,
    root: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Raises DataError where too much is unusable or nothing is left."""
    if not 0 <= allow_rejects <= 1:
        raise UsageError(f"{allow_rejects} is no fraction", where="allow_rejects", help="from 0 to 1, such as 0.01")
    entry = gather(source, options, root, progress)
    facts, rows = entry.facts, entry.rows
    rejects = [*source.rejects, *(Reject(source.names[i], code, detail) for i, code, detail in facts["rejects"])]
    _check(source, rejects, len(entry.items), allow_rejects)
    kept = rows["source"]
    columns = {name: np.asarray(values)[kept] for name, values in source.columns.items()}
    pairs = np.array(facts["alike"]["pairs"], np.int64).reshape(-1, 2)
    held = source.held_out[kept] if source.held_out is not None else None
    official = held is not None and bool(held.any()) and not held.all()
    if held is None or not official:
        held = duplicates.held_out(rows["digest"], pairs, min(0.1, 5_000 / len(rows)))
    notes = [*source.notes, *facts["notes"]]
    if not facts["alike"]["searched"]:
        notes.append(f"look-alikes were not searched for among more than {duplicates.MOST:,} items")
    frames = rows["frame"]
    several = set(kept[frames > 0].tolist())
    audit = Audit(
        source=source.where,
        kind=source.kind,
        count=len(rows),
        shape=tuple(facts["shape"]),
        dtype=facts["dtype"],
        low=tuple(facts["low"]),
        high=tuple(facts["high"]),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        sizes=facts["sizes"],
        transparency=facts["alpha"],
        class_counts=_class_counts(columns.get("label"), source.classes),
        rejects=tuple(rejects),
        ignored=dict(source.ignored),
        notes=tuple(notes),
        official_split=official,
        exact_duplicates=len(rows) - len(np.unique(rows["digest"], axis=0)),
        near_duplicates=tuple((int(i), int(j)) for i, j in pairs),
        leaks=duplicates.leaks(rows["digest"], pairs, held),
    )
    return Dataset(
        items=entry.items,
        columns=columns,
        classes=source.classes,
        names=[
            f"{source.names[i]}#{frame}" if i in several else source.names[i]
            for i, frame in zip(kept.tolist(), frames.tolist(), strict=True)
        ],
        held_out=held,
        fingerprint=fingerprint(rows["digest"], facts, columns, source.classes, held if official else None),
        audit=audit,
        squeeze=source.squeeze,
    )


def fingerprint(
    digests: np.ndarray,
    facts: dict[str, Any],
    columns: dict[str, np.ndarray],
    classes: tuple[str, ...],
    official: np.ndarray | None,
) -> str:
    """sha256 (hex) of the items in their order, shape, dtype, columns, class names and the split the source made."""
    out = hashlib.sha256(repr((facts["shape"], facts["dtype"], classes)).encode())
    out.update(np.ascontiguousarray(digests).tobytes())
    out.update(b"" if official is None else np.packbits(official).tobytes())
    for name in sorted(columns):
        values = columns[name]
        out.update(f"\n{name!r} {len(values)} ".encode())
        if values.dtype.kind in "OU":
            out.update("\0".join(ascii(str(value)) for value in values).encode())
        else:
            out.update(values.dtype.str.encode() + np.ascontiguousarray(values).tobytes())
    return out.hexdigest()


def _class_counts(labels: np.ndarray | None, classes: tuple[str, ...]) -> dict[str, int]:
    if labels is None:
        return {}
    counts = {name: int((labels == k).sum()) for k, name in enumerate(classes)}
    return counts | ({"(no label)": missing} if (missing := int((labels < 0).sum())) else {})


def _check(source: Source, rejects: list[Reject], good: int, allow: float) -> None:
    codes = Counter(reject.code for reject in rejects if reject.code not in _UNCOUNTED)
    bad = codes.total()
    reasons = ", ".join(f"{n:,} {code}" for code, n in codes.most_common()) or "none rejected"
    if good == 0:
        raise DataError(
            f"no usable pictures: {good + bad:,} found ({reasons}), {counted(sum(source.ignored.values()), 'other file')}",
            where=source.where,
            help=_instead(source),
        )
    if bad > allow * (good + bad):
        first = next(reject for reject in rejects if reject.code not in _UNCOUNTED)
        raise DataError(
            f"{bad:,} of {counted(good + bad, 'picture')} cannot be used, more than {allow:.3g} of them ({reasons})",
            where=f"{source.where}, first {first.name!a}: {first.code} {first.detail}",
            help=f"mend or remove them, or allow it with allow_rejects = {_above(bad / (good + bad))}",
        )


def _instead(source: Source) -> str:
    """What to give instead of a place without pictures."""
    arrays = [suffix for suffix in (".npz", ".npy", ".zip") if source.ignored.get(suffix)]
    if arrays:
        return f"the folder holds {' and '.join(arrays)} files: name one of them"
    return "a folder of PNG, JPEG, WebP, GIF, BMP or TIFF files, flat or with a folder a class"


def _above(fraction: float) -> float:
    """The next hundredth above."""
    return min(1.0, int(fraction * 100 + 1) / 100)

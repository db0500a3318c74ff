"""Columns as they are found become columns as they are used: "label" with class names, "text", the split, the rest."""

from dataclasses import dataclass

import numpy as np

from langevin.errors import DataError
from langevin.words import counted

MAX_CAPTION = 1_000  # characters
_LABELS = ("label", "labels", "category", "class", "y")
_HELD_OUT = frozenset(("test", "val", "valid", "validation", "dev", "eval", "heldout", "held_out", "held-out"))
_TRAINED = frozenset(("train", "training"))


@dataclass(frozen=True)
class Named:
    """Columns under the names that the rest of the house uses."""

    columns: dict[str, np.ndarray]
    classes: tuple[str, ...]
    held_out: np.ndarray | None
    notes: tuple[str, ...]


def named_columns(
    columns: dict[str, np.ndarray], count: int, *, label_names: np.ndarray | None = None, where: str = ""
) -> Named:
    """Sorts out columns of length `count`: which is the label, the caption, the split. Raises DataError."""
    columns = {name: np.asarray(values).reshape(count) for name, values in columns.items()}
    out: dict[str, np.ndarray] = {}
    classes: tuple[str, ...] = ()
    notes: list[str] = []
    lower = {name.lower(): name for name in columns}
    label = next((lower[name] for name in _LABELS if name in lower), None)
    if label is not None:
        values = columns.pop(label)
        if values.dtype.kind == "f" and not (values == np.floor(values)).all():
            notes.append(f"`{label}` holds fractions: kept as a column, not used as classes")
            out["value" if label == "label" else label] = values
        else:
            out["label"], classes = _classes(values, label_names, where)
            if label != "label":
                notes.append(f"`{label}` is the label")
    if "text" in lower:
        out["text"], said = captions(columns.pop(lower["text"]))
        notes += said
    held_out = None
    if "split" in lower:
        words = {str(word).strip().lower() for word in np.unique(columns[lower["split"]])}
        if words & _HELD_OUT and words <= _HELD_OUT | _TRAINED:
            held_out = np.array([str(word).strip().lower() in _HELD_OUT for word in columns[lower["split"]]])
    return Named(out | columns, classes, held_out, tuple(notes))


def _classes(values: np.ndarray, label_names: np.ndarray | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(class index (N,) int64, names). Numbers below 0 and empty words are missing: -1."""
    if values.dtype.kind in "biuf":
        values = values.astype(np.int64)
        present = np.unique(values[values >= 0])
        if label_names is not None:
            names = tuple(str(name) for name in label_names)
            if len(present) and present[-1] >= len(names):
                raise DataError(
                    f"a label is {present[-1]}, but there are names for {counted(len(names), 'class', 'classes')}",
                    where=where,
                )
            return np.where(values < 0, -1, values), names
        index = np.searchsorted(present, values)
        return np.where(values < 0, -1, index).astype(np.int64), tuple(str(value) for value in present)
    words = [str(value).strip() for value in values]
    names = tuple(sorted({word for word in words if word}, key=_in_order))
    place = {name: k for k, name in enumerate(names)}
    return np.array([place.get(word, -1) for word in words], np.int64), names


def _in_order(word: str) -> tuple[int, int, str]:
    return (0, int(word), word) if word.isdecimal() and word.isascii() else (1, 0, word)


def captions(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Captions as str (N,), object dtype: none longer than MAX_CAPTION, without NUL or lone surrogates; what was done."""
    out = np.empty(len(values), object)
    missing = cut = nul = 0
    for i, value in enumerate(values):
        text = "" if value is None else str(value)
        clean = text.replace("\0", "").encode("utf-8", "replace").decode()
        nul += "\0" in text
        missing += not clean.strip()
        cut += len(clean) > MAX_CAPTION
        out[i] = clean[:MAX_CAPTION]
    said = (
        (missing, "is", "are", "missing: empty"),
        (cut, "is", "are", f"longer than {MAX_CAPTION:,} characters: cut there"),
        (nul, "holds", "hold", "NUL characters: taken out"),
    )
    return out, [f"{counted(n, f'caption {one}', f'captions {many}')} {what}" for n, one, many, what in said if n]

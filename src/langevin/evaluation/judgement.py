"""From figures to words: what a person should take from a report, most important first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langevin.evaluation.copies import Audit
from langevin.evaluation.figures import Figure

Level = Literal["good", "fair", "bad"]

TOLD_APART = 3.0
"""Standard errors above the floor from which a figure says that generated items are others than real ones."""
ENOUGH, LITTLE = 0.9, 0.7
"""Of the floor's precision or recall: from the first on it is good, below the second it is bad."""
FEW = 500
ALPHA = 0.05


@dataclass(frozen=True)
class Said:
    """A sentence of the verdict: how good the news are, which sentence, and the values in it."""

    level: Level
    key: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Beside:
    """A figure of two sets, a and b. p: chance of so large a difference where there is none; better: "a", "b" or ""."""

    name: str
    a: float
    b: float
    error: float
    p: float
    better: str


def named(figures: Sequence[Figure], first: str) -> Figure | None:
    """The last figure whose name begins so: that in the features that see most."""
    found = [f for f in figures if f.name.startswith(first)]
    return found[-1] if found else None


def judge(figures: Sequence[Figure], audits: Sequence[Audit], halves: bool = False, leaks: int = 0) -> list[Said]:
    """What figures and audits say, bad news first.

    Args:
        halves: whether the floor is that of the other half of the training set.
        leaks: pairs of alike items across training and held-out ones.
    """
    said = [*_likeness(figures), *_copying(audits)]
    if (labels := named(figures, "label agreement")) is not None:
        low = labels.gap > TOLD_APART
        said.append(Said("fair" if low else "good", "say.labels", {"value": labels.value, "floor": labels.floor}))
    count = min((f.count for f in figures if f.name.startswith("frechet")), default=0)
    if 0 < count < FEW:
        said.append(Said("fair", "say.few", {"count": count}))
    if halves:
        said.append(Said("fair", "say.halves", {}))
    if leaks:
        said.append(Said("fair", "say.leaks", {"leaks": leaks}))
    return sorted(said, key=lambda one: one.level != "bad")


def _likeness(figures: Sequence[Figure]) -> list[Said]:
    precision, recall, frechet = (named(figures, n) for n in ("precision", "recall", "frechet"))
    if precision is None or recall is None or frechet is None:
        return []
    judged = [
        f for f in figures if f.name.split("[")[0].strip() in ("frechet", "kernel", "precision", "recall", "coverage")
    ]
    if all(not f.gap > TOLD_APART for f in judged):
        return [Said("fair" if frechet.count < FEW else "good", "say.like", {})]
    faithful, varied = (f.value / f.floor if f.floor else math.inf for f in (precision, recall))
    shares = {
        "precision": precision.value,
        "precision_floor": precision.floor,
        "recall": recall.value,
        "recall_floor": recall.floor,
    }
    said = []
    if min(faithful, varied) >= LITTLE:
        said.append(Said("good" if min(faithful, varied) >= ENOUGH else "fair", "say.near", shares))
    if faithful < LITTLE:
        said.append(Said("bad", "say.unfaithful", shares))
    if varied < LITTLE:
        said.append(Said("bad", "say.narrow", shares))
    distance = {"name": frechet.name, "value": frechet.value, "floor": frechet.floor}
    return [*said, Said("fair", "say.far", distance)]


def _copying(audits: Sequence[Audit]) -> list[Said]:
    if not audits:
        return []
    worst = max(audits, key=lambda a: len(a.named))
    p = [a.p for a in audits if math.isfinite(a.p)]
    if len(worst.named) > max(1, 0.002 * len(worst.index)):
        return [Said("bad", "say.copies", {"named": len(worst.named), "count": len(worst.index)})]
    if not p:
        return [Said("good", "say.new.alone", {})]
    if any(a.p < 0.001 for a in audits):
        return [Said("fair", "say.leaning", {"p": min(p)})]
    return [Said("good", "say.new", {})]


def compare(a: Sequence[Figure], b: Sequence[Figure]) -> list[Beside]:
    """Figures that both sets have, with what their difference is worth.

    The errors of both are taken as independent; they share the real items, so that the test errs on the careful side. A
    difference is called certain by Holm's procedure over all figures, at `ALPHA`.
    """
    others = {f.name: f for f in b}
    pairs = [
        (f, others[f.name]) for f in a if f.name in others and f.error is not None and others[f.name].error is not None
    ]
    rows = []
    for x, y in pairs:
        error = math.hypot(x.error or 0.0, y.error or 0.0)
        p = math.erfc(abs(x.value - y.value) / error / math.sqrt(2)) if error else float(x.value == y.value)
        rows.append((x, y, error, p))
    certain, order = set(), sorted(range(len(rows)), key=lambda k: rows[k][3])
    for rank, k in enumerate(order):
        if rows[k][3] > ALPHA / (len(rows) - rank):
            break
        certain.add(k)
    return [
        Beside(
            x.name,
            x.value,
            y.value,
            error,
            p,
            ("a" if (x.value > y.value) == x.higher_is_better else "b") if k in certain else "",
        )
        for k, (x, y, error, p) in enumerate(rows)
    ]

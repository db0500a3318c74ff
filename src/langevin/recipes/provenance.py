"""What a run learned from: written down when it begins, compared when it goes on.

data.sha256   fingerprint of the data in use
data.json     [facts of the first data, ..., facts of those in use]
data.txt      the audit of each, one after the other
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from langevin.config import TrainConfig
from langevin.data import audit
from langevin.data.dataset import Dataset
from langevin.errors import DataError
from langevin.recipes.signals import going_on
from langevin.store import write_file
from langevin.training import TrainState, private
from langevin.words import counted

Facts = dict[str, Any]
_KIND = {"modality": "kind", "shape": "shape", "dtype": "type", "range": "range of values", "classes": "classes"}
"""What a network is made for."""


def facts(dataset: Dataset) -> Facts:
    """What is compared of a set of items."""
    of = dataset.audit
    return {
        "fingerprint": dataset.fingerprint,
        "items": len(dataset),
        "train": len(dataset.train_indices),
        "held out": len(dataset.held_out_indices),
        "rejected": len(of.rejects),
        "modality": dataset.modality,
        "shape": list(dataset.shape),
        "dtype": of.dtype,
        "range": list(of.model_range),
        "classes": list(dataset.classes),
        "counts": dict(of.class_counts),
    }


def begin(folder: Path, dataset: Dataset) -> None:
    """Write down what a new run learns from."""
    (folder / "data.json").write_text(json.dumps([facts(dataset)], indent=1), "utf-8")
    (folder / "data.txt").write_text(audit.report(dataset), "utf-8")
    (folder / "data.sha256").write_text(dataset.fingerprint, "utf-8")
    if dataset.audit.rejects:
        audit.write_rejects(dataset, folder / "rejects.csv")


def go_on(folder: Path, dataset: Dataset, *, accept: bool) -> str:
    """Whether a run may go on with these data; what changed, in words, "" where nothing did.

    Args:
        accept: write changed data down as those in use.

    Raises:
        DataError: they changed, and that is not accepted or cannot be.
    """
    if (folder / "data.sha256").read_text("utf-8", "replace") == dataset.fingerprint:
        return ""
    known, now, where = _known(folder), facts(dataset), dataset.audit.source
    before = known[-1] if known else {}
    if before and (
        other := [f"{what} {before[k]} before, {now[k]} now" for k, what in _KIND.items() if before[k] != now[k]]
    ):
        raise DataError(
            f"these data need another network: {'; '.join(other)}"[:1000], where=where, help="start a new run"
        )
    changed = _changed(before, now)
    if not accept:
        raise DataError(
            f"the data are not those that the run began with: {changed}",
            where=where,
            help=f"put them back, or go on with them as they are: {going_on(folder)} --accept-changed-data",
        )
    note = f"changed data were accepted: {changed}"
    write_file(
        folder / "data.txt", f"{(folder / 'data.txt').read_text('utf-8', 'replace')}\n\n{note}\n{audit.report(dataset)}"
    )
    write_file(folder / "data.json", json.dumps([*known, now], indent=1))
    write_file(folder / "data.sha256", dataset.fingerprint)
    return note


def before(folder: Path) -> str:
    """What a run learned from earlier, in words for its card; "" where it was always the same."""
    return ", ".join(
        f"{counted(one['items'], 'item')}, fingerprint {one['fingerprint'][:16]}" for one in _known(folder)[:-1]
    )


def _known(folder: Path) -> list[Facts]:
    """The facts of all data that the run had; [] where a run was begun before they were kept."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / "data.json").read_text("utf-8", "replace"))
        if isinstance(found, list):
            return found
    return []


def _changed(before: Facts, now: Facts) -> str:
    names = ("items", "train", "held out", "rejected")
    said = [f"{before[k]:,} {k} before, {now[k]:,} now" for k in names if k in before and before[k] != now[k]]
    counts, others = before.get("counts", {}), now["counts"]
    said += [
        f"{counts.get(name, 0):,} of class {audit.plain(name)} before, {others.get(name, 0):,} now"
        for name in [*counts, *(n for n in others if n not in counts)][:20]
        if counts.get(name, 0) != others.get(name, 0)
    ]
    return "; ".join(said) or (
        f"as many as before ({now['items']:,}), with other contents" if before else "other contents"
    )


def words(folder: Path, config: TrainConfig, state: TrainState, items: int) -> str:
    """How a model came about, for its card; `items` it was trained on."""
    parts = [f"{counted(state.step, 'step')} of {config.batch}", f"{state.elapsed / 60:.1f} min", f"seed {config.seed}"]
    if config.init:
        parts.append(f"from the weights of {Path(config.init).name}")
    out, since, known = ", ".join(parts), state.terms.since if state.terms else 0, before(folder)
    if since and known:
        out += f"; these data from step {since:,} on, before that {known}"
    if spent := private.spent(config, state, items):
        out += f"; differentially private: {spent}"
    return out

"""Checkpoints: a model folder that can be sampled from, and beside it the rest of the state.

    checkpoints/step-000001200/   config.json  model.safetensors  README.md  training.safetensors  state.json  manifest.json

The newest sound one is found by looking at all of them, by step and never by the clock: there is no pointer that could dangle,
and a damaged one is passed over with a warning. The best is the sound one with the lowest held-out loss, which `state.json`
says. Others are deleted only after the new one is on the disk and has been read back.
"""

import json
import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from langevin import __version__, store
from langevin.config import CheckpointsConfig
from langevin.errors import RefusedError
from langevin.finite import refuse_broken
from langevin.model import Model
from langevin.training import layout
from langevin.training.state import TrainState

FORMAT = 2
PARTS = ("config.json", "model.safetensors", "training.safetensors", "state.json")
_FOLDER = re.compile(r"step-(\d{1,12})")


@dataclass(frozen=True)
class Saved:
    """What is known of a checkpoint without loading it.

    Attributes:
        path: its folder.
        step: steps done when it was made.
        held_out: the held-out loss at that step; None where it was not measured.
        format: of what is written in it; None where that cannot be read.
    """

    path: Path
    step: int
    held_out: float | None
    format: int | None


def folders(run: Path) -> list[Path]:
    """Checkpoint folders of a run, newest first."""
    found = {p: int(m[1]) for p in (run / "checkpoints").glob("step-*") if (m := _FOLDER.fullmatch(p.name))}
    return sorted(found, key=found.__getitem__, reverse=True)


def saved(run: Path) -> list[Saved]:
    """The checkpoints of a run, newest first, whether sound or not."""
    return [_look(folder) for folder in folders(run)]


def save(run: Path, model: Model, state: TrainState, *, keep: int = 2, held_out: float | None = None) -> Path:
    """Write the checkpoint of this step, read it back, then delete all but the newest `keep` and the best.

    Called again at a step that is saved it writes nothing, unless the held-out loss has become known since.

    Args:
        run: the run's folder.
        held_out: the held-out loss at this step, where it was measured. The checkpoint with the lowest is never deleted.

    Raises:
        DiskError: no room, or the disk refused; the former checkpoints are intact.
        DivergedError: weights, averages or state that are not finite; nothing is written.
    """
    numbers, tensors = state.numbers(), state.tensors()
    path = run / "checkpoints" / f"step-{state.step:09d}"
    if path.exists():
        if _holds(path, numbers, held_out):
            return path
        held_out = _look(path).held_out if held_out is None else held_out  # what was measured at this step stays known
    refuse_broken({**tensors, **model.tensors()}, where=str(path))
    facts = {
        "format": FORMAT,
        "langevin": __version__,
        "held_out": held_out,
        "unmoved": layout.unmoved(state),
        "numbers": numbers,
    }

    def write(folder: Path) -> None:
        model.write(folder)
        store.write_tensors(folder / "training.safetensors", tensors)
        (folder / "state.json").write_text(json.dumps(facts))

    size = store.size_of(tensors) + store.size_of(model.tensors())
    store.write_folder(path, write, size=size, replace=path.exists())
    store.verify(path, PARTS)
    known = saved(run)
    kept = known[:keep] + _by_loss(known)[:1]
    for one in known:
        if one not in kept and one.format == FORMAT:  # what an older version wrote is not ours to delete
            store.discard(one.path)
    return path


def is_due(often: CheckpointsConfig, step: int, since: float, otherwise: float) -> bool:
    """Whether to save after `step`, `since` seconds after the last time; `otherwise` seconds where the settings say nothing."""
    if often.every_steps is not None and step % often.every_steps == 0:
        return True
    if often.every_minutes is not None:
        return since > 60 * often.every_minutes
    return often.every_steps is None and since > otherwise


def best(run: Path) -> Path | None:
    """The sound checkpoint with the lowest held-out loss, the earlier of two equal ones; None where none was measured."""
    return next((one.path for one in _by_loss(saved(run)) if is_sound(one.path)), None)


def newest(run: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose files are what its manifest says; None where there is none.

    Damaged ones are put aside as `damaged-step-...`, so that they never count among those to keep.
    """
    if (run / "checkpoints").is_dir():
        store.clean(run / "checkpoints", alone=True)
    for folder in folders(run):
        try:
            store.verify(folder, PARTS)
        except RefusedError as error:
            warn(f"{error}; put aside, going back to the one before")
            with suppress(OSError):  # where it cannot be moved it is passed over again the next time
                folder.rename(store.free_path(folder.with_name(f"damaged-{folder.name}")))
            continue
        return folder
    return None


def restore(folder: Path, model: Model, state: TrainState) -> None:
    """Put a verified checkpoint's weights and state into a model and state made from the same config.

    All of it is compared with the model and the state before anything of them is changed. A checkpoint of an older format is
    brought up to this one as it is read; its folder stays as it is.

    Raises:
        RefusedError: it is of a newer format, or belongs to another model or run; nothing has been changed.
    """
    weights = store.read_tensors(folder / "model.safetensors", expected=model.tensors())
    tensors = store.read_tensors(folder / "training.safetensors")
    facts = migrated(read_facts(folder), tensors)
    layout.refuse_others(state, tensors, facts["numbers"], facts.get("unmoved"), where=str(folder))
    state.restore(tensors, facts["numbers"])
    state.load({k.removeprefix("raw."): v for k, v in weights.items() if k.startswith("raw.")})


def read_facts(folder: Path) -> dict[str, Any]:
    """state.json, as it is. Raises RefusedError where it is unreadable or of a newer format."""
    facts = store.read_json(folder / "state.json")
    form = facts.get("format", 1)
    if not isinstance(form, int) or form < 1:
        raise RefusedError(f"no checkpoint has the format {form!r}", where=str(folder / "state.json"))
    if form > FORMAT:
        raise RefusedError(
            f"the checkpoint is of format {form}, written by langevin {facts.get('langevin')}; this is langevin "
            f"{__version__}, which reads up to format {FORMAT}",
            where=str(folder),
            help="upgrade langevin",
        )
    return facts


def migrated(facts: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What state.json says, brought up to this format, in memory: the files it was read from are not touched.

    Args:
        facts: of `read_facts`.
        tensors: of training.safetensors; a migration may rename them in this mapping.
    """
    facts = dict(facts)
    for form in range(facts.get("format", 1), FORMAT):
        facts = MIGRATIONS[form](facts, tensors)
    return facts


def _from_1(facts: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Format 1 had the numbers alone, and those of the clock among them."""
    clock = {k: facts.get(k) for k in ("elapsed", "began")}
    numbers = {"clock": clock} | {k: v for k, v in facts.items() if k not in clock}
    return {"format": 2, "langevin": None, "held_out": None, "unmoved": None, "numbers": numbers}


MIGRATIONS: dict[int, Callable[[dict[str, Any], dict[str, Tensor]], dict[str, Any]]] = {1: _from_1}
"""From a format to the next."""


def _look(folder: Path) -> Saved:
    step = int(folder.name.removeprefix("step-"))
    try:
        facts = store.read_json(folder / "state.json")
    except (RefusedError, OSError):
        return Saved(folder, step, None, None)
    loss, form = facts.get("held_out"), facts.get("format", 1)
    sound = isinstance(loss, int | float) and math.isfinite(loss)
    return Saved(folder, step, float(loss) if sound else None, form if isinstance(form, int) else None)


def _by_loss(known: list[Saved]) -> list[Saved]:
    """Those whose held-out loss is known, the best first; of two equal ones the earlier."""
    measured = [one for one in reversed(known) if one.held_out is not None]
    return sorted(measured, key=lambda one: one.held_out or 0.0)


def _holds(folder: Path, numbers: dict[str, Any], held_out: float | None) -> bool:
    """Whether a sound checkpoint says all that would be written; one of an older format says less, and is left as it is."""
    if not is_sound(folder):
        return False
    facts, now = read_facts(folder), json.loads(json.dumps(numbers))
    if facts.get("format", 1) < FORMAT:
        return all(now.get(k) == v for k, v in migrated(facts, {})["numbers"].items() if k != "clock")
    return facts["numbers"] == now and (held_out is None or facts["held_out"] == held_out)


def is_sound(folder: Path) -> bool:
    """Whether all files of a checkpoint are there and what its manifest says."""
    try:
        store.verify(folder, PARTS)
    except RefusedError:
        return False
    return True

"""Checkpoints: a model folder that can be sampled from, and beside it the rest of the state.

    checkpoints/step-000001200/   config.json  model.safetensors  README.md  training.safetensors  state.json  manifest.json

The newest sound one is found by looking at all of them, newest first: there is no pointer that could dangle, and a damaged
one is passed over with a warning. Older ones are deleted only after the new one is on the disk and verified.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from langevin import store
from langevin.errors import RefusedError
from langevin.model import Model
from langevin.training.state import TrainState


def folders(run: Path) -> list[Path]:
    """Checkpoint folders of a run, newest first."""
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def save(run: Path, model: Model, state: TrainState, *, keep: int = 2) -> Path:
    """Write the checkpoint of this step, verify it, then delete all but the newest `keep`.

    Raises:
        DiskError: no room; the former checkpoints are intact.
    """
    tensors = state.tensors()

    def write(folder: Path) -> None:
        model.write(folder)
        store.write_tensors(folder / "training.safetensors", tensors)
        (folder / "state.json").write_text(json.dumps(state.numbers()))

    path = run / "checkpoints" / f"step-{state.step:09d}"
    if path.exists() and _is_sound(path):
        return path
    size = store.size_of(tensors) + store.size_of(model.tensors())
    store.write_folder(path, write, size=size, replace=path.exists())
    store.verify(path)
    for old in folders(run)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def _is_sound(folder: Path) -> bool:
    try:
        store.verify(folder)
    except RefusedError:
        return False
    return True


def newest(run: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose files are what its manifest says; None where there is none.

    Damaged ones are put aside as `damaged-step-...`, so that they never count among those to keep.
    """
    if (run / "checkpoints").is_dir():
        store.clean(run / "checkpoints")
    for folder in folders(run):
        try:
            store.verify(folder)
        except RefusedError as error:
            warn(f"{error}; put aside, going back to the one before")
            folder.rename(store.free_path(folder.with_name(f"damaged-{folder.name}")))
            continue
        return folder
    return None


def restore(folder: Path, model: Model, state: TrainState) -> None:
    """Put a verified checkpoint's weights and state into a model and state made from the same config.

    Raises:
        RefusedError: it belongs to another model.
    """
    tensors = store.read_tensors(folder / "model.safetensors", expected=model.tensors())
    raw = {k.removeprefix("raw."): v for k, v in tensors.items() if k.startswith("raw.")}
    state.network.load_state_dict(raw)
    numbers: dict[str, Any] = store.read_json(folder / "state.json")
    extra: dict[str, Tensor] = store.read_tensors(folder / "training.safetensors")
    state.restore(extra, numbers)

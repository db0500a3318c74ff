"""The averages that lie in a run's checkpoints: what is left to make others from where no snapshots were kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from langevin import store
from langevin.errors import RefusedError
from langevin.training import checkpoint
from langevin.training.ema import edge

_FILE = "training.safetensors"


@dataclass(frozen=True)
class Kept:
    """Those of one checkpoint; like a `snapshots.Snapshot`.

    Attributes:
        path: its folder.
        step: when it was saved.
        at: the step at which its averages were moved last.
        widths: of its averages.
    """

    path: Path
    step: int
    at: int
    widths: tuple[float, ...]

    def tensors(self, like: Mapping[str, Tensor]) -> dict[float, dict[str, Tensor]]:
        """The averages by width, of parameters by these names."""
        found = store.read_tensors(self.path / _FILE)
        return {s: {k: found[f"ema.{s}.{k}"] for k in like} for s in self.widths}


def sound(run: Path, like: Mapping[str, Tensor], say: Callable[[str], None]) -> list[Kept]:
    """Those of all checkpoints that can be used, in order; of each of the others it is said why not."""
    found = []
    for folder in reversed(checkpoint.folders(run)):
        try:
            store.verify(folder, checkpoint.PARTS)
            found.append(_read(folder, like))
        except RefusedError as error:
            say(f"a checkpoint is passed over: {error}")
    return found


def _read(folder: Path, like: Mapping[str, Tensor]) -> Kept:
    tensors, first = store.read_tensors(folder / _FILE), f".{next(iter(like))}"
    names = [k for k in tensors if k.startswith("ema.") and k.endswith(first)]
    widths = tuple(sorted(float(k.removeprefix("ema.").removesuffix(first)) for k in names))
    for s in widths:
        shapes = {k: tuple(v.shape) for k, v in tensors.items() if k.startswith(f"ema.{s}.")}
        wanted = {f"ema.{s}.{k}": tuple(v.shape) for k, v in like.items()}
        store.refuse_others(shapes, wanted, "the averages do not fit the model", where=str(folder))
        if not all(torch.isfinite(tensors[k]).all() for k in wanted):
            raise RefusedError("numbers that are not finite", where=str(folder))
    step = int(folder.name.removeprefix("step-"))
    return Kept(folder, step, edge(step), widths)

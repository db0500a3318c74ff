"""The weights that a run could publish: raw, each average that was tracked, some of other widths made from the snapshots.

All are measured on the same held-out items at the same noise; what separates two of them is taken item by item.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from langevin import store
from langevin.evaluation.noise_levels import LevelLoss
from langevin.training import TrainState, checkpoint, snapshots
from langevin.words import counted

WIDTHS = (0.03, 0.04, 0.06, 0.08, 0.12, 0.15, 0.2, 0.25)
"""A scan of what can be made."""
FEW = (0.03, 0.08, 0.15, 0.2)
"""What the end of a run tries besides the averages that it tracked, as far as that is cheap."""
SHARE = 0.015
"""Of what the training cost."""
WORST = 0.25
"""A profile that the snapshots miss by more, as a share of its norm, is not offered."""


@dataclass(frozen=True, eq=False)
class Average:
    """Weights to measure.

    Attributes:
        kind: as the optimizer left them, an average that was tracked, one made after the run, or one of the best
            checkpoint's.
        sigma_rel: the width; 0 for raw weights.
        tensors: parameters by name.
        miss: how far its profile is from the wanted one, as a share of its norm.
        step: of the best checkpoint; 0 for all others.
        raw: that checkpoint's raw weights.
    """

    kind: Literal["raw", "tracked", "rebuilt", "kept"]
    sigma_rel: float
    tensors: Mapping[str, Tensor]
    miss: float = 0.0
    step: int = 0
    raw: Mapping[str, Tensor] | None = None

    def __str__(self) -> str:
        name = "raw" if self.kind == "raw" else f"sigma_rel {self.sigma_rel:g}, {self.kind}"
        return name + (f" from step {self.step:,}" if self.step else "")


@dataclass(frozen=True, eq=False)
class Measured:
    """An average and its loss on held-out items."""

    average: Average
    level: LevelLoss

    def above(self, other: "Measured") -> tuple[float, float]:
        """How far the loss lies above another's, and the standard error of that, from pairs of items; nan for one item."""
        apart = np.subtract(self.level.items, other.level.items)
        return float(apart.mean()), float(apart.std(ddof=1) / math.sqrt(len(apart))) if len(apart) > 1 else math.nan


def affordable(step: int, batch: int, evaluations: int) -> int:
    """How many averages of `FEW` cost at most `SHARE` of the training.

    Counted in passes of the network, where a step costs a sample three: the clock would choose otherwise each time.

    Args:
        evaluations: passes that measuring one average takes.
    """
    return min(len(FEW), int(SHARE * 3 * step * batch / max(evaluations, 1)))


def candidates(run: Path, state: TrainState, widths: Sequence[float], say: Callable[[str], None]) -> Iterable[Average]:
    """Raw weights, tracked averages, those of the best checkpoint, and of `widths` what snapshots can give at this step."""
    like = {k: torch.empty(p.shape, dtype=p.dtype, device="meta") for k, p in state.network.named_parameters()}
    weights = state.weights()
    yield Average("raw", 0.0, {k: weights[k].detach() for k in like})
    for sigma_rel in state.averages:
        yield Average("tracked", sigma_rel, state.average_of(sigma_rel))
    yield from _kept(run, state, like)
    others = [s for s in widths if s not in state.averages]
    found = snapshots.sound(run, like, say) if others else []
    for one in snapshots.rebuild(found, others, like, step=state.step) if found else ():
        if one.error <= WORST:
            yield Average("rebuilt", one.profile.sigma_rel, one.tensors, one.error)


def _kept(run: Path, state: TrainState, like: Mapping[str, Tensor]) -> Iterable[Average]:
    """The averages of the best checkpoint, where that is not the last."""
    folder = checkpoint.best(run)
    step = next((one.step for one in checkpoint.saved(run) if one.path == folder), state.step)
    if folder is None or step == state.step:
        return
    tensors = store.read_tensors(folder / "training.safetensors")
    weights = store.read_tensors(folder / "model.safetensors")
    raw = {k.removeprefix("raw."): v for k, v in weights.items() if k.startswith("raw.")}
    for sigma_rel in state.averages:
        names = {k: f"ema.{sigma_rel}.{k}" for k in like}
        if all(name in tensors for name in names.values()):
            average = {k: tensors[name] for k, name in names.items()}
            yield Average("kept", sigma_rel, average, step=step, raw=raw)


def measured(averages: Iterable[Average], loss: Callable[[Mapping[str, Tensor]], LevelLoss]) -> list[Measured]:
    """Each with its held-out loss, by width."""
    return sorted((Measured(a, loss(a.tensors)) for a in averages), key=lambda m: m.average.sigma_rel)


def best(found: Iterable[Measured]) -> Measured:
    """The average with the lowest held-out loss; raw weights are measured for comparison alone."""
    return min((m for m in found if m.average.kind != "raw"), key=lambda m: m.level.mean)


def rows(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """The figures of each as JSON-ready values."""
    chosen = best(found)
    return [
        {
            "kind": m.average.kind,
            "sigma_rel": m.average.sigma_rel,
            "held_out_loss": m.level.mean,
            "above_best": m.above(chosen)[0],
            "standard_error": None if math.isnan(error := m.above(chosen)[1]) else error,
            "profile_miss": m.average.miss,
            "step": m.average.step or None,
        }
        for m in found
    ]


def table(found: Sequence[Measured]) -> str:
    """The averages as lines of text, with a bar each: how far above the one that is taken, where that can be seen at all."""
    chosen = best(found)
    worst = max((m.above(chosen)[0] for m in found), default=0.0)
    count = f"on {counted(len(chosen.level.each), 'item')}"
    lines = [f"{'average':16}  {'held-out loss':>13}  {'above what is taken':>20}   {count}"]
    for m in found:
        apart, error = m.above(chosen)
        kind = f"step {m.average.step}" if m.average.step else m.average.kind
        name = "raw" if m.average.kind == "raw" else f"{m.average.sigma_rel:<6g} {kind}"
        gap = "taken" if m is chosen else f"{round(apart, 5) + 0.0:+.5f} ± {error:.5f}"
        bar = "#" * round(24 * max(apart, 0) / worst) if worst > 5e-6 else ""
        if m.average.kind == "raw":
            bar = f"{bar} (no average: for comparison)".lstrip()
        lines.append(f"  {name:14}  {m.level.mean:13.5f}  {gap:>20}   {bar}".rstrip())
    return "\n".join(lines)

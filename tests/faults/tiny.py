"""The fault kit: runs so small that they can be broken at every place, and the question whether they end as if nothing had been.

A run has a few thousand weights, 8 x 8 pictures, a checkpoint after each step. It goes through `langevin.train` as any
other; only the figures at its end, which take seconds, are left out. What it is compared by, `outcome`, is every byte of the
weights, the averages, the optimizer's memory and the published model, and every row of metrics.jsonl but its clock.

    pytest tests/faults             a sample of all of it, in seconds
    pytest -m slow tests/faults     the whole: every call that can fail, 200 kills, every file of a run with a flipped byte, long
                                    random histories
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import langevin.recipes.session as session
from langevin import store
from langevin.model import Model
from langevin.recipes.console import Console
from langevin.recipes.train import train
from langevin.training import checkpoint

STEPS = 3
SETTINGS = {
    "network": "{name: unet, channels: 1, dims: 2, patch: 2, widths: [4], attention: []}",
    "batch": "6",
    "ema": "[0.1]",
    "precision": "float32",
    "snapshots": "2",
    "checkpoints": "{keep: 2, every_steps: 1}",
}


def pictures(folder: Path) -> Path:
    """A set to learn from."""
    path = folder / "set.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    return path


def begin(data: Path, runs: Path, *, steps: int = STEPS, name: str = "tiny", **settings: str) -> Path:
    """Train from the start; the run's folder."""
    with _no_figures():
        return train(data, steps=steps, out=name, runs=runs, settings={**SETTINGS, **settings}, console=_quiet()).path


def go_on(run: Path, **more: Any) -> Path:
    """Resume to the end."""
    with _no_figures():
        return train(resume=run, console=_quiet(), **more).path


def begin_or_go_on(data: Path, runs: Path, *, steps: int = STEPS, name: str = "tiny") -> Path:
    """What a person does who finds a machine that has stopped: resume where there is a run, else begin."""
    for run in sorted(runs.glob(f"{name}-*")):
        if (run / "config.yaml").exists():
            return run if (run / "figures.json").exists() else go_on(run)
    return begin(data, runs, steps=steps, name=name)


def outcome(run: Path) -> dict[str, Any]:
    """All that a run is, but its clock."""
    newest = checkpoint.newest(run, print)
    assert newest is not None
    store.verify(run / "model")
    numbers = store.read_json(newest / "state.json")["numbers"]
    numbers.pop("clock")
    return {
        "step": newest.name,
        "numbers": numbers,
        "state": store.digest(newest / "training.safetensors"),
        "weights": store.digest(newest / "model.safetensors"),
        "model": store.digest(run / "model/model.safetensors"),
        "rows": rows(run),
    }


def rows(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the clock."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("clock", "elapsed")} for row in found]


def _quiet() -> Console:
    return Console("quiet")


@contextmanager
def _no_figures() -> Iterator[None]:
    """One thread, and nothing measured after training: the model is published as ever."""

    def publish(model: Model, dataset: Any, folder: Path, *arguments: Any, **settings: Any) -> Any:
        model.save(folder / "model", replace=True)
        store.write_file(folder / "figures.json", "{}")
        return SimpleNamespace(path=folder)

    measure, threads = session.measure, torch.get_num_threads()
    session.measure = publish
    torch.set_num_threads(1)
    try:
        yield
    finally:
        session.measure = measure
        torch.set_num_threads(threads)

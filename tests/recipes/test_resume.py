"""A run that was killed and stopped ends with the same bytes as one that never was: real processes, real signals."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import langevin
from langevin.config import parse, read_yaml
from langevin.data import open as open_data
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.errors import DataError, UsageError
from langevin.evaluation.noise_levels import held_out_loss
from langevin.recipes.console import Console
from langevin.recipes.train import train
from langevin.registry import build
from langevin.store import read_tensors
from langevin.training import checkpoint
from tests.models import digits_like

TINY = "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}"
KINDS = {
    "plain": {},
    "accumulated": {"micro_batch": "3"},
    "loss-aware": {"times": "{name: loss_aware, bins: 4, warm: 2}"},
    "uncertain": {"uncertainty": "true", "data.flip": "true"},
}
PROGRAM = """
import os, signal, sys
import langevin.recipes.session as session
from langevin.cli import main

at, how, inner = int(sys.argv[1]), sys.argv[2], session.fit
session.CHECKPOINT_SECONDS = float(sys.argv[3])

def fit(*given, **settings):
    for metrics in inner(*given, **settings):
        if metrics.step == at:
            os.kill(os.getpid(), getattr(signal, how))
        yield metrics

session.fit = fit
main(sys.argv[4:])
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("set") / "set.npz"
    images, labels = digits_like(130)
    np.savez(path, images=images, labels=labels)
    return path


def command(path, steps: int, out: str, kind: str = "plain") -> list[str]:
    settings = {"network": TINY, "batch": "12", "precision": "float32", **KINDS[kind]}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["train", str(path), "--steps", str(steps), "--out", out, *sets]


def sitting(arguments: list[str], at: int = 0, how: str = "SIGTERM", every: float = 0.05) -> tuple[int, str]:
    """Run a process that gets a signal at a step; its exit code and what it said."""
    program = [sys.executable, "-c", PROGRAM, str(at), how, str(every), *arguments]
    done = subprocess.run(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200)
    return done.returncode, done.stdout


def rows(run: Path) -> list[dict]:
    """All rows of metrics.jsonl without what follows the wall clock."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "clock"} for row in found]


def everything(run: Path) -> dict[str, str]:
    """Name -> sha256 of all that a run leaves, without the wall clock and the run's own name."""

    def sha(content: bytes | str | object) -> str:
        body = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
        return hashlib.sha256(body).hexdigest()

    out, last = {"metrics.jsonl": sha(rows(run))}, checkpoint.folders(run)[0]
    for folder in (run / "model", last):
        for file in sorted(folder.glob("*.safetensors")):
            for name, tensor in read_tensors(file).items():
                body = tensor.contiguous().numpy().tobytes()
                out[f"{folder.name}/{file.name}/{name}"] = sha(body + str((tensor.dtype, tensor.shape)).encode())
    numbers = json.loads((last / "state.json").read_text())["numbers"]
    out[f"{last.name}/state.json"] = sha({k: v for k, v in numbers.items() if k != "clock"})
    described = json.loads((run / "model/config.json").read_text())
    described["about"] = {k: v for k, v in described["about"].items() if k not in ("name", "training")}
    out["model/config.json"] = sha(described)
    for file in sorted([*run.glob("*.png"), *run.glob("previews/*.png"), run / "figures.json"]):
        out[str(file.relative_to(run))] = sha(file.read_bytes())
    for file in sorted(run.glob("ema/*/*.safetensors")):
        out[str(file.relative_to(run))] = sha(file.read_bytes())
    return out


def same(whole: Path, parts: Path) -> None:
    a, b = everything(whole), everything(parts)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_200_steps_are_50_killed_70_stopped_and_80(pictures, in_tmp, kind):
    """An epoch is about ten steps; what was killed goes on from its last checkpoint."""
    assert sitting(command(pictures, 200, "whole", kind), every=1e9)[0] == 0
    killed, _ = sitting(command(pictures, 200, "parts", kind), 50, "SIGKILL")
    assert killed == -signal.SIGKILL
    stopped, said = sitting(["train", "--resume", "runs/parts-1"], 120, "SIGTERM")
    assert (stopped, "stopped at step 120 and saved" in said) == (75, True), said
    assert sitting(["train", "--resume", "runs/parts-1"])[0] == 0
    for name, digest in everything(Path("runs/parts-1")).items():
        print(digest[:16], name)
    same(Path("runs/whole-1"), Path("runs/parts-1"))

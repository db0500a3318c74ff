"""A run that was killed and stopped ends with the same bytes as one that never was: real processes, real signals."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import langevin.data.gather
import langevin.recipes.averages
import langevin.recipes.looks
import langevin.recipes.outcome
import langevin.recipes.session
from langevin.cli.main import run as langevin_command
from langevin.config import read_yaml
from langevin.diffusion import NetworkDenoiser
from langevin.errors import DataError, UsageError
from langevin.recipes.console import Console
from langevin.recipes.lock import lock
from langevin.recipes.looks import Looks
from langevin.recipes.train import train
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
import langevin.recipes.looks as looks
import langevin.recipes.session as session
from langevin.cli import main

looks.LEAST, looks.FIRST = 1, 5  # a look every few steps
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


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr("langevin.recipes.looks.LEAST", 1)
    monkeypatch.setattr("langevin.recipes.looks.FIRST", 5)


STEPS = 40


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """A run of 40 steps that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("langevin.recipes.looks.LEAST", 1)
        patch.setattr("langevin.recipes.looks.FIRST", 5)
        assert langevin_command(command(pictures, STEPS, "whole")) == 0
    assert len(list(root.glob("runs/whole-1/previews/*.png"))) >= 1
    assert len([row for row in rows(root / "runs/whole-1") if "held_out" in row]) >= 3
    return root / "runs/whole-1"


def _signals_at(monkeypatch, *steps: int, kind: int = signal.SIGTERM) -> None:
    """Have this process get a signal after each of these steps of training."""
    inner = langevin.recipes.session.fit

    def fit(*given, **settings):
        for metrics in inner(*given, **settings):
            if metrics.step in steps:
                os.kill(os.getpid(), kind)
            yield metrics

    monkeypatch.setattr("langevin.recipes.session.fit", fit)


def test_killed_then_stopped_three_times_it_is_the_run_that_never_was(pictures, whole, in_tmp, monkeypatch):
    assert sitting(command(pictures, STEPS, "parts"), 17, "SIGKILL")[0] == -signal.SIGKILL
    _signals_at(monkeypatch, 21, 22, 33)
    for _ in range(3):
        assert langevin_command(["train", "--resume", "runs/parts-1"]) == 75
    assert langevin_command(["train", "--resume", "runs/parts-1"]) == 0
    same(whole, Path("runs/parts-1"))
    found = [row["step"] for row in rows(Path("runs/parts-1")) if "loss" in row]
    assert found == list(range(1, STEPS + 1))


PHASES = {
    "reading": "langevin.data.gather.Writer.append",
    "training": "langevin.training.loop.gradient",
    "looking": "langevin.recipes.session.Looks.look",
    "drawing a preview": "langevin.recipes.lookout.preview",
    "saving": "langevin.training.checkpoint.save",
    "publishing": "langevin.recipes.averages.measured",
    "sampling": "langevin.recipes.outcome.some_rows",
    "measuring": "langevin.recipes.outcome.figures",
}


@pytest.mark.parametrize("phase", PHASES)
def test_asked_to_stop_in_any_phase_it_leaves_before_the_next_evaluation(phase, pictures, whole, in_tmp, monkeypatch):
    """And the run that is gone on with is the one that was never stopped."""
    inner, asked, evaluations = _resolve(PHASES[phase]), [], []

    def signalled(*given, **settings):
        if not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(*given, **settings)

    def counted(self, *given, **settings):
        if asked and not self.training:
            evaluations.append(1)
        return forward(self, *given, **settings)

    forward = NetworkDenoiser.forward
    with monkeypatch.context() as patch:
        patch.setattr(PHASES[phase], signalled)
        patch.setattr(NetworkDenoiser, "forward", counted)
        patch.setenv("LANGEVIN_CACHE", str(in_tmp / "cache"))
        assert langevin_command(command(pictures, STEPS, "parts")) == 75
        assert evaluations == []
    if phase == "reading":
        assert not Path("runs").exists()
        assert list(in_tmp.glob("cache/**/items.bin")) == []
        return
    assert not (Path("runs/parts-1") / "figures.json").exists()
    assert langevin_command(["train", "--resume", "runs/parts-1"]) == 0
    same(whole, Path("runs/parts-1"))


def _resolve(dotted: str):
    """What a dotted name means."""
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        found = sys.modules.get(".".join(parts[:cut]))
        if found is not None:
            for part in parts[cut:]:
                found = getattr(found, part)
            return found
    raise LookupError(dotted)


def test_a_look_at_one_checkpoint_is_the_same_to_the_bit_whoever_looks(pictures, whole, in_tmp, monkeypatch):
    """A look that was cut short is made by whoever goes on, and is that of the run which was never stopped."""
    _signals_at(monkeypatch, 5, 6)
    assert langevin_command(command(pictures, STEPS, "parts")) == 75
    assert not any("held_out" in row for row in rows(Path("runs/parts-1")))
    measured: list[list[float]] = []
    inner = Looks.look

    def look(self, *given):
        level, more = inner(self, *given)
        measured.append(level.each.tolist())
        return level, more

    monkeypatch.setattr(Looks, "look", look)
    for name in "ab":
        shutil.copytree("runs/parts-1", f"runs/{name}")
        assert langevin_command(["train", "--resume", f"runs/{name}"]) == 75
        assert rows(Path(f"runs/{name}")) == rows(whole)[:7]
    assert len(measured) == 2 and measured[0] == measured[1]


def test_micro_batches_may_change_and_what_makes_the_run_may_not(pictures, in_tmp, monkeypatch, capsys):
    _signals_at(monkeypatch, 8, 12)
    assert langevin_command(command(pictures, 20, "run")) == 75
    run = Path("runs/run-1")
    wrong = ["--seed", "5", "--set", "optimizer.lr=1e-4", "--set", "network.widths=[8, 16]", "--flip"]
    assert langevin_command(["train", "--resume", str(run), *wrong]) == 2
    said = capsys.readouterr().err
    for key in ("seed (0, not 5)", "optimizer.lr (0.002, not 0.0001)", "network.widths", "data.flip (False, not True)"):
        assert key in said
    assert langevin_command(["train", "--resume", str(run), "--minutes", "3"]) == 2
    assert "budget is in steps" in capsys.readouterr().err
    assert langevin_command(["train", "--resume", str(run), "--set", "micro_batch=5"]) == 75
    assert "micro_batch is 5 from here on, None before" in capsys.readouterr().out
    assert read_yaml(run / "config.yaml")["micro_batch"] == 5
    assert langevin_command(["train", "--resume", str(run), "--set", "batch=24"]) == 0
    found = [row for row in rows(run) if "loss" in row]
    assert [row["samples"] for row in found] == [*range(12, 145, 12), *range(168, 241, 24)]
    assert found[-1]["step"] == 16 and read_yaml(run / "config.yaml")["steps"] == 16


def test_a_finished_run_is_trained_longer_by_a_larger_budget_of_the_whole_run(pictures, in_tmp, capsys):
    assert langevin_command(command(pictures, 20, "run")) == 0
    run = Path("runs/run-1")
    published = (run / "model/model.safetensors").read_bytes()
    for same_again in ([], ["--steps", "20"]):
        assert langevin_command(["train", "--resume", str(run), *same_again]) == 2
        assert f"langevin train --resume {run} --steps 40" in capsys.readouterr().err
    assert langevin_command(["train", "--resume", str(run), "--steps", "30"]) == 0
    assert (run / "finished-1/model/model.safetensors").read_bytes() == published
    assert (run / "finished-1/figures.json").is_file() and (run / "figures.json").is_file()
    rates = {row["step"]: row["lr"] for row in rows(run) if "loss" in row}
    assert list(rates) == list(range(1, 31))
    peak = 2e-3
    course = peak * 0.5 * (1 + np.cos(np.pi * (25 - 0.5) / 30))  # that of a run of 30 steps, once it is warm again
    assert rates[25] == pytest.approx(course, rel=1e-6)
    assert rates[20] < 0.01 * peak < rates[22]


def test_changed_data_are_named_refused_and_accepted_on_request(in_tmp, monkeypatch, capsys):
    images, labels = digits_like(130)
    np.savez("set.npz", images=images, labels=labels)
    _signals_at(monkeypatch, 8, 12, 15)
    assert langevin_command(command(Path("set.npz"), 20, "run")) == 75
    shutil.copytree("runs/run-1", "runs/other")
    more, kinds = digits_like(151, seed=1)
    Path("set.npz").unlink()
    np.savez("set.npz", images=more, labels=kinds)
    run, other = Path("runs/run-1"), Path("runs/other")
    with pytest.raises(DataError, match="not those that the run began with: 130 items before, 151 now") as refused:
        train(resume=run, console=Console("quiet"))
    assert "--accept-changed-data" in str(refused.value)
    with pytest.raises(UsageError, match="no former data"):
        train("set.npz", accept_changed_data=True)
    # stopped twice more, and killed before it had saved again: the same samples
    assert langevin_command(["train", "--resume", str(run), "--accept-changed-data"]) == 75
    assert "other data from step 8 on" in capsys.readouterr().out
    assert langevin_command(["train", "--resume", str(run)]) == 75
    assert langevin_command(["train", "--resume", str(run)]) == 0
    assert sitting(["train", "--resume", str(other), "--accept-changed-data"], 11, "SIGKILL", every=1e9)[0] == -9
    assert langevin_command(["train", "--resume", str(other)]) == 75  # at step 12
    assert langevin_command(["train", "--resume", str(other)]) == 75  # at step 15
    assert langevin_command(["train", "--resume", str(other)]) == 0
    assert [row for row in rows(run) if "loss" in row] == [row for row in rows(other) if "loss" in row]
    assert "changed data were accepted" in (run / "data.txt").read_text()
    assert "these data from step 8 on, before that 130 items" in (run / "model/README.md").read_text()
    assert "changed data were accepted" in (run / "run.log").read_text()


def test_data_of_another_kind_are_never_accepted(in_tmp, monkeypatch):
    images, labels = digits_like(130)
    np.savez("set.npz", images=images, labels=labels)
    _signals_at(monkeypatch, 2)
    assert langevin_command(command(Path("set.npz"), 5, "run")) == 75
    Path("set.npz").unlink()
    with pytest.raises(DataError, match=r"not there any more.*--resume runs/run-1 --set data.path="):
        train(resume="runs/run-1", console=Console("quiet"))
    np.savez("set.npz", images=np.stack([images] * 3, -1), labels=labels)
    with pytest.raises(DataError, match="another network: shape"):
        train(resume="runs/run-1", accept_changed_data=True, console=Console("quiet"))


def test_a_run_that_another_process_has_is_refused_and_can_be_sampled_from(pictures, whole, in_tmp, capsys):
    shutil.copytree(whole, "runs/run")
    Path("runs/run/figures.json").unlink()
    with lock(Path("runs/run")):
        said = sitting(["train", "--resume", "runs/run"])
        assert said[0] == 2 and f"process {os.getpid()} on" in said[1]
        assert langevin_command(["sample", "runs/run", "-n", "2", "--steps", "2", "--out", "a.png"]) == 0
    assert Path("a.png").is_file()

"""Tuned steps are kept with the model, change nothing else in its folder, and are used until something else is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import langevin
from langevin import store
from langevin.cli.main import run as command
from langevin.errors import UsageError
from langevin.recipes.console import Console
from langevin.recipes.sample import replay, sample
from langevin.recipes.tune import tune
from langevin.registry import describe
from langevin.rng import keyed
from langevin.solvers import trajectory
from langevin.solvers.default import default
from tests.models import small_model


@pytest.fixture
def run(in_tmp) -> Path:
    model = small_model()
    model.sampling = {"steps": 4, "guidance": 1.0}
    model.save(in_tmp / "runs/small-1/model")
    return Path("runs/small-1")


def _files(folder: Path) -> dict[str, str]:
    return {f.name: store.digest(f) for f in folder.iterdir()}


def test_tuned_steps_are_kept_and_used(run, capsys):
    before, made = _files(run / "model"), sample(run, 3, out=Path("before.png"), steps=3, say=lambda text: None)
    assert command(["tune", str(run), "--steps", "3", "--seeds", "24"]) == 0
    said = capsys.readouterr().out
    assert "3 steps" in said and f"langevin sample {run} --steps 3" in said
    after = _files(run / "model")
    assert {k for k in after if after[k] != before[k]} == {"config.json", "manifest.json"}
    model = langevin.load(run)
    row = json.loads((run / "model/config.json").read_text())["sampling"]["tuned"]["3"]
    assert describe(model.method(3)[2]) == row["grid"] and describe(model.method(3)[1]) == row["solver"]
    assert row["error"] < row["default_error"]

    heard: list[str] = []
    (tuned,) = sample(run, 3, out=Path("tuned.png"), steps=3, say=heard.append)
    assert "tuned for this model" in heard[0]
    sample(run, 3, out=Path("named.png"), steps=3, solver="ddim", say=heard.append)
    sample(run, 3, out=Path("other.png"), steps=5, say=heard.append)
    assert sum("tuned" in line for line in heard if line.startswith("made  ") and "tuned.png" not in line) == 0
    (again,) = replay(tuned, out=Path("again.png"), say=heard.append)
    assert np.array_equal(_pixels(again), _pixels(tuned))
    (as_before,) = replay(made[0], out=Path("as_before.png"), say=heard.append)  # what was made before is made the same
    assert np.array_equal(_pixels(as_before), _pixels(made[0]))


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path))


def test_the_distance_it_tells_is_the_distance_on_new_seeds(run):
    """Of tuned and default steps to 300 steps of another solver, within what 200 seeds vary."""
    found = tune(run, steps=(4,), seeds=64, console=Console("quiet"))[4]
    model = langevin.load(run)
    seeds = range(200)
    x = model.denoiser.process.prior((200, *model.shape), keyed(seeds)(0), dtype=torch.float32)
    cond = {"label": torch.from_numpy(model.labels(seeds))}

    def end(solver, times):
        *_, step = trajectory(model.denoiser, solver, x, times, cond=cond)
        return step.x.flatten(1).double()

    schedule = model.denoiser.process.schedule
    solver, grid = model.solver("dpmpp"), model.grid({"name": "log_snr", "ratio_min": 1e-4})
    fine = end(solver, grid(schedule, 300))
    spread = fine.square().mean().sqrt() * fine.shape[1] ** 0.5
    for (solver, grid), told in (((found.solver, found.grid), found.error), (default(4), found.default_error)):
        mine = (end(solver, grid(schedule, 4)) - fine).norm(dim=1).mean() / spread
        assert mine.item() == pytest.approx(told, rel=0.15)


def test_what_was_tuned_for_other_steps_stays(run):
    tune(run, steps=(2,), seeds=16, console=Console("quiet"))
    tune(run, steps=(3,), seeds=16, console=Console("quiet"))
    assert set(langevin.load(run).sampling["tuned"]) <= {"2", "3"}
    assert langevin.load(run).tuned(3) is not None
    assert not list((run).glob(".tmp*"))


@pytest.mark.parametrize("settings", [{"steps": (0,)}, {"steps": (51,)}, {"steps": ()}, {"seeds": 4}])
def test_numbers_out_of_range_are_usage_errors(run, settings):
    before = _files(run / "model")
    with pytest.raises(UsageError):
        tune(run, **settings, console=Console("quiet"))
    assert _files(run / "model") == before

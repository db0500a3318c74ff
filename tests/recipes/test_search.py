"""A search: what its trials are, what counts, what is given up, and that its best recipe gives the same model again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import stats

import langevin
from langevin import data
from langevin.config import parse, read_yaml, write_yaml
from langevin.diffusion import GaussianDiffusion
from langevin.diffusion.schedules import VE, Cosine
from langevin.errors import DiskError, UsageError
from langevin.evaluation.noise_levels import held_out_loss
from langevin.exact.gaussian import GaussianDenoiser
from langevin.recipes import findings, plan
from langevin.recipes.console import Console
from langevin.recipes.judge import Measure
from langevin.recipes.search import search
from langevin.recipes.signals import StoppedError
from langevin.recipes.space import Space
from langevin.recipes.study import Study
from langevin.recipes.train import train
from langevin.recipes.trials import Trials
from tests.models import digits_like

pytest.importorskip("optuna")

QUICK = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}", "batch": "12"}
QUICK |= {"sampling.steps": "2", "snapshots": "0"}
RATES = {"optimizer.lr": {"low": 2e-3, "high": 2e-2, "log": True}}


@pytest.fixture
def pictures(in_tmp) -> Path:
    images, labels = digits_like(130)
    np.savez("set.npz", images=images, labels=labels)
    return Path("set.npz")


def _search(path="set.npz", **more):
    given = {} if "resume" in more else {"settings": QUICK, "steps_per_trial": 8, "trials": 2, "space": RATES}
    return search(None if "resume" in more else path, console=Console("quiet"), **{**given, **more})


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A search of two trials that nothing happened to."""
    there = tmp_path_factory.mktemp("undisturbed")
    images, labels = digits_like(130)
    np.savez(there / "set.npz", images=images, labels=labels)
    found = _search(there / "set.npz", seed=1, searches=there / "searches")
    assert [r.state for r in found.trials] == ["complete", "complete"]
    return found


def test_trials_are_runs_the_first_is_the_default_recipe_and_the_best_one_can_be_trained_again(undisturbed, in_tmp):
    found = undisturbed
    assert found.path.parts[-2:] == ("searches", "set-1")
    assert [r.number for r in found.trials] == [0, 1]
    assert found.trials[0].values == {"optimizer.lr": 2e-3}
    for row in found.trials:
        config = read_yaml(found.path / row.folder / "config.yaml")
        assert config["optimizer"]["lr"] == row.values["optimizer.lr"]
        steps = (found.path / row.folder / "metrics.jsonl").read_text().splitlines()
        assert any("loss" in json.loads(line) for line in steps)
    best = min((r for r in found.trials if r.held_out is not None), key=lambda r: r.held_out)
    assert read_yaml(found.best) == read_yaml(found.path / best.folder / "config.yaml")
    again = train(found.path.parents[1] / "set.npz", config=found.best, console=Console("quiet"))
    a, b = (langevin.load(p).tensors() for p in (again.path, found.path / best.folder))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    written = _rows(found.path)
    assert [float(r["held_out"]) for r in written if r["held_out"]] == [
        r.held_out for r in found.trials if r.held_out is not None
    ]
    with Image.open(found.path / "importance.png") as plots:
        assert min(plots.size) > 200


def test_the_objective_is_that_of_the_default_recipe_whatever_a_trial_changes(pictures, in_tmp):
    """A trial's loss is the published model's under the default's weight and law, though the trial trains by others."""
    changed = {**QUICK, "weight": "{name: snr}", "times": "{name: uniform}", "schedule": "{name: cosine}"}
    found = _search(settings=changed, trials=1)
    dataset = data.open(pictures)
    measure = Measure(parse({"data": {"path": str(pictures)}}), dataset)
    assert (type(measure.law).__name__, type(measure.weight).__name__) == ("LogNormal", "Karras")
    model = langevin.load(found.path / "runs/trial-000")
    rows = dataset.held_out_indices
    x0 = model.codec.encode(torch.from_numpy(np.array(dataset.items[rows])))
    cond = {"label": torch.from_numpy(dataset.columns["label"][rows].astype(np.int64))}
    expected = held_out_loss(model.denoiser, x0, cond, measure.law, measure.weight).mean
    assert found.trials[0].held_out == pytest.approx(expected, rel=1e-5)


def test_the_measure_does_not_depend_on_the_schedule(pictures, in_tmp):
    """The exact denoiser of a Gaussian knows the same on every schedule, so its measured loss is the same."""
    measure = Measure(parse({"data": {"path": str(pictures)}}), data.open(pictures))
    x0 = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ve, cosine = (
        measure(GaussianDenoiser(GaussianDiffusion(schedule), torch.zeros(3), torch.ones(())), (x0, {}))
        for schedule in (VE(), Cosine())
    )
    assert ve == pytest.approx(cosine, rel=1e-6)


def test_a_hopeless_learning_rate_is_given_up_early(pictures, in_tmp):
    space = {"optimizer.lr": [2e-3, 1e-12]}
    found = _search(space=space, trials=3, steps_per_trial=16)
    hopeless = [r for r in found.trials if r.values["optimizer.lr"] == "1e-12"]
    assert hopeless
    for row in hopeless:
        assert row.state == "pruned" and row.held_out is None
        done = [json.loads(x) for x in (found.path / row.folder / "metrics.jsonl").read_text().splitlines()]
        assert max(r["step"] for r in done) == 4  # a quarter of 16
    kept = [r for r in found.trials if r.values["optimizer.lr"] == "0.002"]
    assert kept and all(r.state == "complete" for r in kept if r.number == 0)


def test_a_recipe_that_diverges_ends_its_trial_and_not_the_search(pictures, in_tmp):
    found = _search(space={"optimizer.lr": [2e-3, 1e30]})
    wild = [r for r in found.trials if r.values["optimizer.lr"] == "1e+30"]
    assert wild and all(r.state == "pruned" for r in wild)
    assert found.trials[0].state == "complete"


def _ends(found):
    return [(r.values, r.seen, r.state, r.held_out) for r in found.trials if r.state != "killed"]


PROGRAM = """
import os, signal, sys
from langevin.cli import main
from langevin.recipes import session
from langevin.training import checkpoint
session.CHECKPOINT_SECONDS, save = 0.0, checkpoint.save

def save_and_die(folder, *arguments, **more):
    save(folder, *arguments, **more)
    if folder.name == sys.argv[1] and (folder / "checkpoints/step-000000003").is_dir():
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.save = save_and_die
main(sys.argv[2:])
"""


def _start(dies_in: str, *arguments: str) -> subprocess.Popen:
    """`langevin search` in a process that saves after every step, and is killed after the third of one of its runs."""
    command = [sys.executable, "-c", PROGRAM, dies_in, "search", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _fresh(trials: int) -> list[str]:
    Path("space.yaml").write_text(yaml.safe_dump(RATES))
    quick = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]
    return [
        "set.npz",
        "--trials",
        str(trials),
        "--steps-per-trial",
        "8",
        "--space",
        "space.yaml",
        "--seed",
        "1",
        *quick,
    ]


def test_killed_a_trial_is_marked_and_not_counted_and_its_run_goes_on(pictures, in_tmp, undisturbed):
    process = _start("trial-001", *_fresh(2))
    said = process.communicate(timeout=120)[0]
    assert process.returncode == -signal.SIGKILL, said
    folder = Path("searches/set-1")
    found = _search(resume=folder)
    assert [r.state for r in found.trials] == ["complete", "killed", "complete"]
    killed, again = found.trials[1], found.trials[2]
    assert again.values == killed.values and again.folder == killed.folder
    assert "going on from step 3" in (folder / "runs/trial-001/run.log").read_text()
    assert _ends(found) == _ends(undisturbed)


def test_asked_to_stop_a_search_leaves_with_75_and_says_how_to_go_on(pictures, in_tmp, monkeypatch, undisturbed):
    """The signal comes at the first look of the second trial; its run goes on, and ends as if never stopped."""
    looks = []

    def interrupted(self, denoiser, unseen, own=Measure.__call__):
        looks.append(1)
        if len(looks) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return own(self, denoiser, unseen)

    with monkeypatch.context() as patched:
        patched.setattr(Measure, "__call__", interrupted)
        with pytest.raises(StoppedError) as caught:
            _search(seed=1)
    assert caught.value.exit_code == 75
    assert "langevin search --resume searches/set-1" in str(caught.value)
    states = [r["state"] for r in _rows(Path("searches/set-1"))]
    assert states == ["complete", "killed", "waiting"]
    found = _search(resume="searches/set-1")
    assert [r.state for r in found.trials][:2] == ["complete", "killed"]
    assert _ends(found) == _ends(undisturbed)


def test_a_full_disk_ends_the_search_and_counts_against_no_recipe(pictures, in_tmp, monkeypatch):
    def learn(self, folder, recipe, *watchers):
        if folder.name == "trial-001":
            raise DiskError("the disk is full")
        (folder / "config.yaml").write_text(write_yaml(recipe))
        return 1.0

    monkeypatch.setattr(Trials, "learn", learn)
    with pytest.raises(DiskError):
        _search(trials=3)
    assert [r["state"] for r in _rows(Path("searches/set-1"))] == ["complete"]
    folder = Path("searches/set-1")
    base = parse(read_yaml(folder / "recipe.yaml"))
    with Study(folder, Space.read(base, folder / "space.yaml"), trials=3, seed=0) as study:
        assert [r.state for r in study.rows()] == ["complete", "killed", "waiting"]


def test_importance_finds_the_setting_that_matters_and_says_nothing_of_few_trials(pictures, in_tmp):
    base = plan.resolve(parse({"data": {"path": "set.npz"}, "steps": 3}), data.open(pictures))
    space = Space.of(base, {**RATES, "dropout": {"low": 0.0, "high": 0.5}})
    with Study(in_tmp, space, trials=16, seed=0) as study:
        for k in range(16):
            assert k > 3 or study.importance() == {}
            trial = study.ask()
            trial.finish(abs(trial.values["dropout"] - 0.2))
        assert next(iter(study.importance().items()))[1] > 0.9
        assert list(study.importance()) == ["dropout", "optimizer.lr"]


@pytest.mark.slow
def test_two_processes_share_a_search(pictures, in_tmp):
    first = _start("none", *_fresh(3))
    folder, deadline = Path("searches/set-1"), time.monotonic() + 120
    while not list(folder.glob("runs/trial-000/checkpoints/step-*")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    second = _start("none", "--resume", str(folder))
    outputs = [p.communicate(timeout=120)[0] for p in (first, second)]
    assert [p.returncode for p in (first, second)] == [0, 0], outputs
    found = _search(resume=folder)
    assert [r.number for r in found.trials] == [0, 1, 2]
    assert all(r.state in ("complete", "pruned") for r in found.trials)
    assert len({r.folder for r in found.trials}) == 3
    assert "trial   2" in outputs[1] or "trial   2" in outputs[0]


def test_confirmed_it_says_whether_the_gap_is_more_than_noise(pictures, in_tmp):
    """A default that learns nothing is beaten for sure; the seeds that confirm it are others than the one that chose."""
    found = _search(
        settings={**QUICK, "optimizer.lr": "1e-7"}, space={"optimizer.lr": {"low": 4e-3, "high": 5e-3}}, confirm=True
    )
    assert found.verdict is not None and found.verdict.better
    losses = {
        name: [
            json.loads((found.path / "runs" / f"{name}-seed-{k}" / "held-out.json").read_text())["held_out"]
            for k in (1, 2)
        ]
        for name in ("trial-000", f"trial-{_best(found).number:03d}")
    }
    default, best = [found.trials[0].held_out, *losses["trial-000"]], losses[f"trial-{_best(found).number:03d}"]
    assert found.verdict.gap == pytest.approx(np.mean(default) - np.mean(best))


def _best(found):
    return min((r for r in found.trials if r.held_out is not None), key=lambda r: r.held_out)


def test_the_verdict_is_students_test_of_two_means():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 3.0):
        default, best = rng.normal(1 + shift, 1, 3).tolist(), rng.normal(1, 1, 2).tolist()
        ours = findings.verdict(default, best)
        theirs = stats.ttest_ind(default, best, alternative="greater")
        assert ours.better == (theirs.pvalue < 1 - findings.SURE)
        assert ours.gap / ours.least == pytest.approx(theirs.statistic / stats.t.ppf(findings.SURE, 3))


def test_a_space_holds_the_recipes_own_values_and_its_origin_is_the_recipe(pictures, in_tmp):
    dataset = data.open(pictures)
    base = plan.resolve(parse({"data": {"path": "set.npz"}, "steps": 3}), dataset)
    given = {
        "optimizer.lr": {"low": 1e-2, "high": 1e-1, "log": True},
        "batch": [64, 128],
        "network.widths": {"scale": [0.5, 2]},
        "schedule": [{"name": "cosine"}],
    }
    space = Space.of(base, given)
    assert space.recipe(space.origin()) == base
    assert space.kinds["optimizer.lr"].low == 2e-3
    changed = space.recipe({**space.origin(), "network.widths": 0.5, "schedule": '{"name": "cosine"}'})
    assert changed.network["widths"] == [w // 2 for w in base.network["widths"]]
    assert changed.schedule == {"name": "cosine"} and changed.optimizer == base.optimizer
    assert Space.of(base, space.describe()) == space
    default = Space.default(base, lambda recipe: True, labelled=True)
    assert default.recipe(default.origin()) == base
    assert "dropout" not in Space.default(base, lambda recipe: True, labelled=False).kinds


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"optimizer.lrr": [1.0]}, "did you mean `lr`"),
        ({"seed": [1, 2]}, "same in all trials"),
        ({"data.size": [8, 16]}, "same in all trials"),
        ({"optimizer.lr": {"low": 1, "high": 0}}, "low < high"),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"optimizer.lr": 3}, "is no space"),
        ({"optimizer.lr": {"lo": 3}}, "unknown form"),
        ({"schedule": {"scale": [1, 2]}}, "no number"),
        ({}, "empty"),
    ],
)
def test_mistakes_in_a_space_are_told_and_leave_nothing(pictures, in_tmp, space, said):
    with pytest.raises(UsageError, match=said):
        _search(space=space)
    assert not Path("searches").exists()


def test_a_resumed_search_keeps_its_settings_and_can_be_made_longer(pictures, in_tmp):
    found = _search(trials=1)
    with pytest.raises(UsageError, match="keeps its own seed"):
        _search(resume=found.path, seed=1)
    with pytest.raises(UsageError, match="did you mean `set-1`"):
        _search(resume=found.path.with_name("set-2"))
    longer = _search(resume=found.path, trials=2)
    assert [r.number for r in longer.trials] == [0, 1]
    assert longer.trials[0] == found.trials[0]


def test_optuna_missing_is_a_usage_error_that_names_the_extra(pictures, in_tmp, monkeypatch):
    monkeypatch.setattr("langevin.recipes.study.optuna", None)
    with pytest.raises(UsageError, match=r"langevin\[search\]"):
        _search()
    assert not Path("searches").exists()

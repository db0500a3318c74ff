"""A run from a path to a model folder: what it leaves, what it refuses, and that it survives being killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import langevin
from langevin.errors import DataError, RefusedError, UsageError
from langevin.recipes.console import Console
from langevin.recipes.lock import lock
from langevin.recipes.outcome import sheet_of
from langevin.recipes.signals import StoppedError
from langevin.recipes.train import train
from tests.models import digits_like, small_model

QUICK = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}", "batch": "12"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of pictures in two class folders."""
    root = tmp_path_factory.mktemp("halves") / "halves"
    for k, (picture, label) in enumerate(zip(*digits_like(300), strict=True)):
        target = root / ("left", "right")[label] / f"{k:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target)
    return root


def _train(path, **settings):
    return train(path, console=Console("quiet"), settings=QUICK, **{"steps": 30, **settings})


def test_a_run_leaves_a_model_figures_sheets_and_the_config_that_made_it(folder, in_tmp):
    run = _train(folder, seed=3)
    assert run.path == Path("runs/halves-1")
    names = {p.name for p in run.path.iterdir()}
    assert {"config.yaml", "data.txt", "metrics.jsonl", "run.log", "checkpoints", "model"} <= names
    assert {"samples.png", "real-and-generated.png", "figures.json"} <= names
    assert run.model.classes == ("left", "right")
    assert run.samples.shape[1:] == (8, 8, 1)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss" in r] == list(range(1, 31))
    figures = {f["name"]: f for f in json.loads((run.path / "figures.json").read_text())["figures"]}
    gradients = figures["frechet[gradients]"]
    assert gradients["value"] > gradients["floor"] > 0
    card = (run.path / "model/README.md").read_text()
    assert "frechet[gradients]" in card
    assert "langevin.load" in card
    again = _train(folder, config=run.path / "config.yaml")
    assert again.path == Path("runs/halves-2")
    a, b = (langevin.load(r.path).sample(4, seed=1) for r in (run, again))
    assert np.array_equal(a, b)


def test_training_moves_samples_towards_the_data(folder, in_tmp):
    """The bright half of the picture is where the label says, far more often than by chance."""
    run = _train(folder, steps=400)
    items = run.model.sample(40, label=["left", "right"] * 20, steps=8).astype(float)
    left = items[:, :, :4].mean((1, 2, 3)) > items[:, :, 4:].mean((1, 2, 3))
    assert (left == (np.arange(40) % 2 == 0)).mean() > 0.9
    assert run.held_out.mean < 0.7


def test_unlabelled_arrays_come_back_in_their_own_layout(in_tmp):
    np.save("plain.npy", digits_like(120)[0])
    run = _train("plain.npy", steps=3)
    assert run.samples.shape[1:] == (8, 8)
    assert run.samples.dtype == np.uint8
    assert run.labels is None


PROGRAM = """
import sys, time
from langevin.cli import main
import langevin.recipes.session as t
t.CHECKPOINT_SECONDS = 0.0
main(sys.argv[1:])
"""


def _start(*arguments: str) -> subprocess.Popen:
    quick = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-c", PROGRAM, "train", *arguments, *quick]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for_checkpoints(run: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if len(list((run / "checkpoints").glob("step-*"))) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[0])


def test_killed_in_the_middle_of_a_checkpoint_it_goes_on_and_ends_as_if_never_killed(folder, in_tmp):
    """Every step writes a checkpoint, so that a kill falls into the writing of one."""
    whole = _train(folder, steps=25, out="whole")
    killed = _start(str(folder), "--steps", "25", "--out", "killed")
    run = Path("runs/killed-1")
    _wait_for_checkpoints(run, 2, killed)
    deadline = time.monotonic() + 60
    while not list((run / "checkpoints").glob(".tmp-*")) and time.monotonic() < deadline:
        pass
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (run / "model").exists()
    train(resume=run, console=Console("quiet"))
    a, b = (langevin.load(p, weights=w) for p in ("runs/whole-1", run) for w in ("raw",))
    assert np.array_equal(a.sample(4), b.sample(4))
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in steps if "loss" in r] == list(range(1, 26))
    expected = [json.loads(line) for line in Path("runs/whole-1/metrics.jsonl").read_text().splitlines()]
    assert [r["loss"] for r in steps if "loss" in r] == [r["loss"] for r in expected if "loss" in r]
    assert np.array_equal(langevin.load(run).sample(4), whole.model.sample(4))


def test_asked_to_stop_it_saves_and_says_how_to_go_on(folder, in_tmp):
    process = _start(str(folder), "--steps", "100000", "--out", "stopped")
    _wait_for_checkpoints(Path("runs/stopped-1"), 1, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 75
    assert "langevin train --resume runs/stopped-1" in said
    assert langevin.load("runs/stopped-1").sample(1).shape == (1, 8, 8, 1)


def test_a_second_process_on_one_run_is_refused_and_a_dead_one_is_not_obeyed(in_tmp):
    run = in_tmp / "r"
    run.mkdir()
    with lock(run), pytest.raises(UsageError, match=str(os.getpid())), lock(run):
        pass
    for left_behind in ('{"pid": 999999999, "host": "elsewhere"}', json.dumps({"pid": os.getpid()}), "{half"):
        (run / "lock.json").write_text(left_behind)
        with lock(run):
            pass


def test_changed_data_are_refused_on_resume(in_tmp):
    images = digits_like(120)[0]
    np.save("set.npy", images)
    run = _train("set.npy", steps=3)
    (run.path / "figures.json").unlink()  # as if it were not finished
    images[5, 0, 0] ^= 1
    Path("set.npy").unlink()
    np.save("set.npy", images)
    with pytest.raises(DataError, match="not those that the run began with"):
        train(resume=run.path, console=Console("quiet"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": None}, "no data given"),
        ({"path": "digits", "out": "../x"}, "cannot name a run"),
        ({"path": "digits", "minutes": 1, "steps": 3}, "minutes or steps"),
        ({"resume": "runs/none"}, "no run to resume"),
        ({"path": "nowhere"}, "nothing lies there"),
        ({"path": "digits", "settings": {"network.widths": "[8]", "network.attention": "[3]"}}, "`network`: attention"),
        ({"path": "digits", "settings": {"schedule.name": "vee"}}, "`schedule`: unknown schedule `vee`"),
        ({"path": "digits", "settings": {"codec": "{}"}}, "`codec`: unknown codec"),
    ],
)
def test_mistakes_are_usage_errors(in_tmp, arguments, said):
    with pytest.raises(UsageError, match=said):
        train(**arguments, console=Console("quiet"))


def test_a_budget_of_minutes_is_kept(folder, in_tmp):
    started = time.perf_counter()
    run = _train(folder, steps=None, minutes=0.15)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    last = [r for r in rows if "loss" in r][-1]
    assert 8.5 < last["clock"]["elapsed"] < 12
    assert last["lr"] < 1e-4
    looks = [r for r in rows if "levels" in r]
    assert looks
    assert looks[-1]["step"] == last["step"]
    drawn = {int(p.stem.removeprefix("step-")) for p in (run.path / "previews").glob("*.png")}
    assert drawn <= {r["step"] for r in looks}
    assert time.perf_counter() - started < 60


def test_a_finished_run_is_not_done_again_and_a_resumed_one_keeps_its_settings(in_tmp):
    np.save("set.npy", digits_like(120)[0])
    run = _train("set.npy", steps=2)
    with pytest.raises(UsageError, match="finished"):
        train(resume=run.path, console=Console("quiet"))
    with pytest.raises(UsageError, match="budget is in steps"):
        train(resume=run.path, minutes=3, console=Console("quiet"))
    with pytest.raises(UsageError, match=r"keeps its own seed \(0, not 1\)"):
        train(resume=run.path, seed=1, console=Console("quiet"))
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.002", "lr: 0.003"))
    with pytest.raises(RefusedError, match="edited or is damaged"):
        train(resume=run.path, steps=4, console=Console("quiet"))


def test_a_budget_that_reading_has_spent_trains_no_model(in_tmp):
    with pytest.raises(UsageError, match="went into reading"):
        train("digits", minutes=1e-4, console=Console("quiet"))
    assert not list(Path("runs").glob("*/model"))


def test_few_labels_are_no_obstacle(in_tmp):
    """Two of 200 pictures have a label: there is a model, there are figures, and no agreement with labels."""
    images, _ = digits_like(200)
    Path("few").mkdir()
    rows = ["file_name,label"]
    for k, picture in enumerate(images):
        Image.fromarray(picture).save(f"few/{k:03d}.png")
        rows.append(f"{k:03d}.png,{'cat' if k < 2 else ''}")
    Path("few/metadata.csv").write_text("\n".join(rows))
    run = _train("few", steps=2)
    assert run.model.classes == ("cat",)
    assert {f.name for f in run.figures} >= {"frechet[pca]"}
    assert not [f for f in run.figures if f.name.startswith("label")]


def test_a_sheet_shows_every_class_by_its_name():
    """Classes called by numbers are not taken for indices."""
    model = small_model(("1", "2", "3"))
    _, labels, columns = sheet_of(model)
    assert model.labels(range(len(labels)), labels).tolist() == [c for c in range(3) for _ in range(columns)]


def test_asked_to_stop_while_it_measures_it_leaves_and_goes_on_later(folder, in_tmp, monkeypatch):
    def interrupted(*arguments, **settings):
        os.kill(os.getpid(), signal.SIGTERM)
        return []

    with monkeypatch.context() as patched:
        patched.setattr("langevin.recipes.outcome.figures", interrupted)
        with pytest.raises(StoppedError) as caught:
            _train(folder, steps=2, out="late")
    assert caught.value.exit_code == 75
    assert langevin.load("runs/late-1").classes == ("left", "right")
    assert train(resume="runs/late-1", console=Console("quiet")).figures


def test_settings_of_a_noun_change_its_default_and_mistakes_leave_no_folder(folder, in_tmp):
    run = _train(folder, steps=1, config={"sampling": {"steps": 3}}, seed=1)
    assert run.model.sampling["steps"] == 3
    changed = train(
        folder,
        steps=1,
        settings={**QUICK, "schedule.sigma_max": "50", "sampling.solver": "heun"},
        console=Console("quiet"),
    )
    assert changed.model.denoiser.process.schedule.sigma_max == 50
    assert type(changed.model.solver()).__name__ == "Heun"
    before = sorted(Path("runs").iterdir())
    for wrong in (
        {"sampling.solver": "foo"},
        {"weight.name": "snrr"},
        {"sampling.stepz": "3"},
        {"ema": "[0.5]"},
        {"network": "{a"},
    ):
        with pytest.raises(UsageError):
            train(folder, steps=1, settings={**QUICK, **wrong}, console=Console("quiet"))
    assert sorted(Path("runs").iterdir()) == before

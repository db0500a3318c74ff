"""Curves of quality: rows are what the yardstick says of the model's samples, and what is recommended follows from them."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import langevin
from langevin import store
from langevin.cli.main import run as command
from langevin.errors import DataError, UsageError
from langevin.evaluation.figures import Figure, Yardstick
from langevin.evaluation.labels import label_agreement
from langevin.evaluation.metrics.base import Estimate
from langevin.recipes.console import Console
from langevin.recipes.curve import FIRST_SEED, curve
from langevin.recipes.curves.base import Over, Row, Subject
from langevin.recipes.curves.guidance import Guidance
from langevin.recipes.curves.steps import Steps
from langevin.recipes.reopen import reopen
from langevin.recipes.signals import StoppedError
from langevin.recipes.train import train
from langevin.registry import names
from langevin.training import snapshots
from tests.models import digits_like, small_model

QUICK = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}", "batch": "16"}
LAST = 150


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A short run on pictures of two kinds."""
    root = tmp_path_factory.mktemp("curve")
    images, labels = digits_like(800)
    np.savez(root / "halves.npz", images=images, labels=labels)
    return train(root / "halves.npz", steps=LAST, settings=QUICK, runs=root / "runs", console=Console("quiet")).path


@pytest.fixture
def run(trained, tmp_path) -> Path:
    shutil.copytree(trained, tmp_path / "halves-1")
    return tmp_path / "halves-1"


def _take(run: Path, over: str, *at: float, n: int = 64, **more):
    return curve(run, over, at=at, n=n, console=Console("quiet"), **more)


def _files(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): store.digest(f) for f in folder.rglob("*") if f.is_file()}


def _yardstick(run: Path, n: int):
    config, dataset = reopen(run)
    train, held_out = dataset.take(dataset.train_indices), dataset.take(dataset.held_out_indices)
    labels = dataset.columns["label"]
    real = train, labels[dataset.train_indices], held_out, labels[dataset.held_out_indices]
    return Yardstick.of(train, held_out, n, config.seed), real


def test_over_steps_rows_are_measured_at_the_same_seeds_and_what_is_found_is_kept_and_used(run):
    before = _files(run)
    found = _take(run, "steps", 3, 9)
    steps = found.advice.row.x
    assert found.stored and steps in (3, 9)
    after, model = _files(run), langevin.load(run)
    assert {k for k in before if after[k] != before[k]} == {"model/config.json", "model/manifest.json"}
    assert after.keys() - before.keys() == {"curve-steps.png", "curve-steps.json"}
    store.verify(run / "model")
    assert model.sampling["steps"] == steps
    assert np.array_equal(model.sample(3, seed=5), model.sample(3, seed=5, steps=steps))

    yardstick, real = _yardstick(run, 64)
    seeds = range(FIRST_SEED, FIRST_SEED + 64)
    for row in found.rows:
        samples = model.sample(seeds=seeds, steps=int(row.x))[..., None]
        assert np.array_equal(row.items, samples)
        want = [*yardstick.measure(samples), label_agreement(*real, samples, model.labels(seeds))]
        assert list(row.figures) == want
    three, nine = found.rows
    gap = yardstick.difference(three.items, nine.items)
    assert gap.value == pytest.approx(three.frechet - nine.frechet, abs=1e-6)
    assert steps == (3 if gap.value <= gap.error else 9)
    facts = json.loads(found.facts.read_text())
    assert facts["over"] == "steps" and facts["complete"] and facts["model"] == model.digest
    assert facts["recommended"]["setting"] == {"steps": steps} and facts["recommended"]["stored"]
    assert [row["x"] for row in facts["rows"]] == [3, 9]
    for row, told in zip(found.rows, facts["rows"], strict=True):
        assert row.seconds == told["seconds"] > 0 and told["steps"] == row.x
        for f in row.figures:
            one = told["figures"][f.name]
            assert (one["value"], one["error"], one["floor"]) == (f.value, f.error, f.floor)
            assert one["low"] <= f.value <= one["high"] and one["floor_low"] <= f.floor <= one["floor_high"]
            assert one["interval"] == [f.low, f.high]
    with Image.open(found.picture) as picture:
        assert picture.size[0] > 1000


def test_tuned_steps_are_taken_where_there_are_some(run):
    config = json.loads((run / "model/config.json").read_text())
    grid = {"name": "times", "times": [1.0, 0.7, 0.5, 0.0]}
    config["sampling"]["tuned"] = {"3": {"solver": {"name": "ddim"}, "grid": grid}}
    (run / "model/config.json").write_text(json.dumps(config))
    (run / "model/manifest.json").write_text(json.dumps(_manifest(run / "model")))
    found = _take(run, "steps", 3, 4, n=32, dry=True)
    assert [row.facts["tuned"] for row in found.rows] == [True, False]
    seeds = range(FIRST_SEED, FIRST_SEED + 32)
    by_hand = langevin.load(run).sample(seeds=seeds, steps=3, solver="ddim", grid=grid)
    assert np.array_equal(found.rows[0].items[..., 0], by_hand)
    assert not found.stored and json.loads((run / "model/config.json").read_text()) == config


def _manifest(folder: Path) -> dict:
    files = [f for f in folder.iterdir() if f.name != "manifest.json"]
    return {f.name: {"sha256": store.digest(f), "size": f.stat().st_size} for f in files}


def test_over_guidance_the_scale_is_kept_and_curves_lie_beside_each_other(run, capsys):
    assert command(["curve", str(run), "--over", "guidance", "--at", "1", "3", "-n", "64", "--dry"]) == 0
    said = capsys.readouterr().out
    assert "label agreement" in said and "real floor" in said and "without --dry" in said
    before = langevin.load(run)
    found = _take(run, "guidance", 1, 3)
    assert found.picture.name == "curve-guidance-1.png" and (run / "curve-guidance.png").exists()
    model = langevin.load(run)
    assert model.sampling == {**before.sampling, "guidance": found.advice.row.x}
    interval = before.sampling["guidance_interval"]
    assert interval is not None
    seeds = range(FIRST_SEED, FIRST_SEED + 64)
    for row, settings in zip(
        found.rows, ({"guidance": 1}, {"guidance": 3, "guidance_interval": interval}), strict=True
    ):
        assert np.array_equal(row.items[..., 0], before.sample(seeds=seeds, **settings))
    assert "label agreement[gradients]" in json.loads(found.facts.read_text())["rows"][0]["figures"]


def test_over_average_the_held_out_loss_is_that_of_the_run_and_nothing_is_published(run):
    before, console = _files(run / "model"), Console("quiet")
    found = curve(run, "average", at=(0.08, 0.2), n=32, console=console)
    ended = {r["sigma_rel"]: r["held_out_loss"] for r in json.loads((run / "figures.json").read_text())["averages"]}
    rows = {row.x: row for row in found.rows}
    assert {0.0, 0.05, 0.08, 0.1, 0.2} == rows.keys()
    for width, loss in ended.items():
        assert rows[width].weights.level.mean == pytest.approx(loss, rel=1e-6)
    assert _files(run / "model") == before and not found.stored
    assert found.advice.next.startswith(("langevin ema", "langevin sample"))
    seeds, published = range(FIRST_SEED, FIRST_SEED + 32), langevin.load(run)
    name = published.about["average"]
    (same,) = (row for row in found.rows if str(row.weights.average) == name)
    assert np.array_equal(same.items[..., 0], published.sample(seeds=seeds))


def test_over_training_the_last_is_the_runs_own_first_average(run):
    steps = list(snapshots.folders(run))
    found = _take(run, "training", steps[0], steps[4], LAST, n=48)
    assert [row.x for row in found.rows] == [steps[0], steps[4], LAST]
    assert found.rows[0].frechet > found.rows[-1].frechet
    assert found.rows[0].weights.level.mean > found.rows[-1].weights.level.mean
    assert not found.stored and found.advice.row.x <= LAST
    model = langevin.load(run)
    tensors = store.read_tensors(next((run / "ema").glob(f"step-*{LAST}")) / "averages.safetensors")
    with torch.no_grad():
        for name, parameter in model.denoiser.network.named_parameters():
            parameter.copy_(tensors[f"0.05.{name}"])
    assert np.array_equal(found.rows[-1].items[..., 0], model.sample(seeds=range(FIRST_SEED, FIRST_SEED + 48)))
    with pytest.raises(UsageError, match="neither snapshot nor checkpoint of step 7"):
        _take(run, "training", 7, LAST)


@pytest.mark.parametrize(
    ("over", "more", "said"),
    [
        ("steps", {"at": (0, 4)}, "whole numbers"),
        ("steps", {"at": (4.5, 8)}, "whole numbers"),
        ("steps", {"at": (4,)}, "two points"),
        ("steps", {"n": 3}, "samples"),
        ("guidance", {"at": (-1, 2)}, "between 0 and"),
        ("average", {"at": (0.1, 0.5)}, "between 0.001 and 0.28"),
        ("widths", {}, "unknown over"),
    ],
)
def test_mistakes_are_usage_errors_and_leave_nothing(run, over, more, said):
    before = _files(run)
    with pytest.raises(UsageError, match=said):
        curve(run, over, **more, console=Console("quiet"))
    assert _files(run) == before


def test_an_unfinished_run_other_data_and_no_classes_are_refused(run):
    config = json.loads((run / "model/config.json").read_text())
    (run / "data.sha256").write_text("others")
    with pytest.raises(DataError, match="not those of the run"):
        _take(run, "steps", 2, 4)
    model = langevin.load(run)
    model.classes, model.class_weights = (), ()
    assert config["classes"]
    with pytest.raises(UsageError, match="without classes"):
        Guidance().check(run, model, (1, 2))
    (run / "figures.json").unlink()
    with pytest.raises(UsageError, match="has finished") as caught:
        _take(run, "steps", 2, 4)
    assert f"langevin train --resume {run}" in str(caught.value)


def test_stopped_it_writes_what_it_has_and_keeps_no_setting(run, monkeypatch):
    from langevin.recipes.curves import sheet

    told, before = sheet.line, _files(run / "model")

    def line(over, row, rows):
        if len(rows) == 2:
            signal.raise_signal(signal.SIGTERM)
        return told(over, row, rows)

    monkeypatch.setattr(sheet, "line", line)
    with pytest.raises(StoppedError) as caught:
        _take(run, "steps", 2, 3, 4, n=16)
    assert caught.value.exit_code == 75 and "--at 4" in str(caught.value)
    facts = json.loads((run / "curve-steps.json").read_text())
    assert [row["x"] for row in facts["rows"]] == [2, 3]
    assert not facts["complete"] and facts["recommended"] is None
    assert _files(run / "model") == before


def _row(x: float, frechet: float, agreement: float = 0.9) -> Row:
    figures = (
        Figure("frechet[pca]", 7.0, 1.0, 100, "training", 1.0),
        Figure("frechet[gradients]", frechet, 1.0, 100, "training", 1.0),
        Figure("label agreement[gradients]", agreement, 0.95, 100, "training", 0.03, True, floor_error=0.02),
    )
    return Row(x, f"{x:g}", {"steps": int(x)}, {}, None, figures, np.zeros(0), 0.1)


def _of(run: Path = Path("runs/x-1")) -> Subject:
    return Subject(run, *[None] * 5)  # type: ignore[arg-type]


def _apart(error: float):
    return lambda row, other: Estimate(row.frechet - other.frechet, error)


def test_the_fewest_steps_within_one_error_of_the_difference_are_recommended():
    rows = [_row(4, 9.0), _row(8, 3.4), _row(12, 3.1), _row(50, 3.0)]
    chosen = {error: Steps().advise(_of(), rows, _apart(error)).row.x for error in (0.01, 0.2, 0.5, 7.0)}
    assert chosen == {0.01: 50, 0.2: 12, 0.5: 8, 7.0: 4}
    assert Steps().advise(_of(), rows, _apart(0.2)).setting == {"steps": 12}
    worse_later = [_row(4, 9.0), _row(8, 3.0), _row(50, 3.1)]
    assert Steps().advise(_of(), worse_later, _apart(0.2)).row.x == 8


def test_a_solver_of_two_evaluations_a_step_takes_half_as_many_steps():
    model = small_model()
    model.sampling = {"solver": "heun", "grid": "karras", "guidance": 1.0}
    of = dataclasses.replace(_of(), model=model)
    found = [(point.x, point.settings) for point in Steps().points(of, (1, 4, 5, 8))]
    assert found == [(1, {"steps": 1}), (4, {"steps": 2}), (8, {"steps": 4})]


def test_guidance_takes_the_lowest_distance_among_those_that_show_their_classes():
    """Agreement is below the floor by chance at 0.9 (1.4 errors of both) and by more than that at 0.85 (2.8)."""
    rows = [_row(1, 2.0, 0.85), _row(2, 2.5, 0.9), _row(3, 4.0, 0.97)]
    advice = Guidance().advise(_of(), rows, _apart(0.1))
    assert advice.setting == {"guidance": 2} and "as well as real items do" in advice.why
    none = [_row(1, 2.0, 0.8), _row(2, 1.5, 0.85)]
    advice = Guidance().advise(_of(), none, _apart(0.1))
    assert advice.setting == {"guidance": 2} and "at none of these" in advice.why


def test_the_kinds_are_those_of_the_command(capsys):
    assert set(names("langevin.recipes.curves", Over)) == {"steps", "guidance", "average", "training"}
    assert command(["curve", "--help"]) == 0
    assert "average" in capsys.readouterr().out


@pytest.mark.slow
def test_on_digits_two_evaluations_are_worse_than_twenty(in_tmp):
    run = train("digits", steps=700, console=Console("quiet")).path
    found = curve(run, "steps", at=(2, 6, 20), n=195, console=Console("quiet"))
    two, *_, twenty = found.rows
    assert two.frechet > 1.3 * twenty.frechet
    assert found.advice.row.x > 2 and langevin.load(run).sampling["steps"] == found.advice.row.x

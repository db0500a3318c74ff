"""Averages of any width after a run: equal to those that were tracked, made into models, compared on held-out data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import langevin
from langevin import store
from langevin.errors import DataError, UsageError
from langevin.recipes import averages
from langevin.recipes.console import Console
from langevin.recipes.ema import ema
from langevin.recipes.train import train
from langevin.training import checkpoint, snapshots
from tests.models import digits_like

NEVER_STORED = (0.06, 0.08, 0.12, 0.15, 0.2)
QUICK = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}", "batch": "12"}


class Said(Console):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__("quiet")
        self.lines: list[str] = []

    def say(self, text, **facts):
        self.lines.append(text)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> Path:
    """A finished run of 400 steps in which the widths that were never stored are tracked as well."""
    root = tmp_path_factory.mktemp("ema")
    images, labels = digits_like(300)
    np.savez(root / "set.npz", images=images, labels=labels)
    settings = {**QUICK, "ema": str([0.05, 0.1, *NEVER_STORED])}
    return train(root / "set.npz", steps=400, settings=settings, runs=root / "runs", console=Console("quiet")).path


@pytest.fixture
def run(tracked, tmp_path) -> Path:
    """A copy whose snapshots have the two usual widths alone."""
    copy = tmp_path / "run"
    shutil.copytree(tracked, copy)
    for folder in snapshots.folders(copy).values():
        facts = json.loads((folder / "snapshot.json").read_text())
        tensors = store.read_tensors(folder / "averages.safetensors")
        facts["widths"] = [0.05, 0.1]

        def write(new, facts=facts, tensors=tensors):
            kept = {k: v for k, v in tensors.items() if k.startswith(("0.05.", "0.1."))}
            store.write_tensors(new / "averages.safetensors", kept)
            (new / "snapshot.json").write_text(json.dumps(facts))

        store.write_folder(folder, write, replace=True)
    return copy


def _vector(model_or_tensors) -> torch.Tensor:
    return torch.cat([v.double().flatten() for v in model_or_tensors.values()])


def _tracked(run: Path, sigma_rel: float) -> dict[str, torch.Tensor]:
    tensors = store.read_tensors(checkpoint.newest(run, print) / "training.safetensors")
    start = f"ema.{sigma_rel}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


@pytest.mark.parametrize("sigma_rel", NEVER_STORED)
def test_a_real_run_gives_the_average_that_would_have_been_tracked(run, sigma_rel):
    folder = ema(run, sigma_rel=sigma_rel, console=Console("quiet"))
    assert folder == run / f"ema-{sigma_rel:g}"
    made = langevin.load(folder)
    want = _tracked(run, sigma_rel)
    found = dict(made.denoiser.network.named_parameters())
    a, b = _vector({k: found[k].detach() for k in want}), _vector(want)
    assert (a - b).norm() < 2e-3 * b.norm()
    raw = _vector({k: langevin.load(run, weights="raw").denoiser.network.get_parameter(k).detach() for k in want})
    assert (a - b).norm() < 0.05 * (raw - b).norm()  # and not because all averages are alike
    assert made.about["average"] == f"sigma_rel {sigma_rel:g}, rebuilt"
    assert not made.about.get("figures")
    assert made.sample(2, steps=2).shape == (2, 8, 8)


def test_the_scan_measures_as_the_run_did_and_takes_the_best(run):
    console = Said()
    ema(run, sigma_rel=0.2, publish=True, console=Console("quiet"))
    folder = ema(run, console=console)
    table = next(line for line in console.lines if line.startswith("average"))
    facts = json.loads((run / "figures.json").read_text())["averages"]
    ended = {row["sigma_rel"]: row["held_out_loss"] for row in facts if row["kind"] == "tracked"}
    for width, loss in ended.items():
        assert f"{f'{width:<6g} tracked':14}  {loss:13.5f}" in table
    (raw,) = (row["held_out_loss"] for row in facts if row["kind"] == "raw")
    assert f"raw             {raw:13.5f}" in table
    assert langevin.load(folder).about["held-out loss"] <= min(ended.values())
    assert f"made       {folder}" in console.lines[-2]
    with pytest.raises(UsageError, match="something already"):
        ema(run, console=Console("quiet"))
    assert ema(run, publish=True, console=Console("quiet")) == run / "model"
    again = Said()
    assert ema(run, console=again) == run / "model"
    assert "has the best of them" in again.lines[-1]


def test_what_the_end_of_a_run_says_is_what_its_weights_give(tracked):
    """Each row is the mean over items; the model has the weights of the lowest, raw ones aside."""
    facts = json.loads((tracked / "figures.json").read_text())
    rows = {(r["kind"], r["sigma_rel"]): r for r in facts["averages"]}
    assert {("raw", 0.0), ("tracked", 0.05), ("tracked", 0.1)} <= rows.keys()
    lowest = min((r for r in facts["averages"] if r["kind"] != "raw"), key=lambda r: r["held_out_loss"])
    assert lowest["above_best"] == 0 and facts["held_out_loss"] == lowest["held_out_loss"]
    for row in facts["averages"]:
        assert row["above_best"] == pytest.approx(row["held_out_loss"] - lowest["held_out_loss"], abs=1e-12)
    model = langevin.load(tracked)
    want = _tracked(tracked, lowest["sigma_rel"])
    assert all(torch.equal(model.denoiser.network.get_parameter(k), v) for k, v in want.items())


def test_publishing_keeps_the_former_model(run):
    before = langevin.load(run)
    files = {f.name: f.read_bytes() for f in (run / "model").iterdir()}
    made = ema(run, sigma_rel=0.15, publish=True, console=Console("quiet"))
    assert made == run / "model"
    assert {f.name: f.read_bytes() for f in (run / "model-1").iterdir()} == files
    assert langevin.load(run).about["average"] == "sigma_rel 0.15, rebuilt"
    assert langevin.load(run).digest != before.digest
    ema(run, sigma_rel=0.2, publish=True, console=Console("quiet"))
    assert (run / "model-2").is_dir()


def test_an_earlier_step_has_a_folder_of_its_own(run):
    steps = list(snapshots.folders(run))
    assert ema(run, sigma_rel=0.1, step=steps[7], console=Console("quiet")).name == f"ema-0.1-step-{steps[7]}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sigma_rel": 0.5}, "between 0.001 and 0.28"),
        ({"sigma_rel": 0.001001}, "do not reach"),
        ({"sigma_rel": 0.1, "step": 100_000}, "do not reach"),
        ({"step": 10}, "no width"),
    ],
)
def test_mistakes_are_usage_errors_and_leave_nothing(run, arguments, said):
    before = sorted(run.iterdir())
    with pytest.raises(UsageError, match=said):
        ema(run, **arguments, console=Console("quiet"))
    assert sorted(run.iterdir()) == before


def test_without_snapshots_or_with_other_data_it_is_refused(run):
    (run / "data.sha256").write_text("others")
    with pytest.raises(DataError, match="not those of the run"):
        ema(run, console=Console("quiet"))
    (run / "figures.json").unlink()
    with pytest.raises(UsageError, match="has finished"):
        ema(run, console=Console("quiet"))
    shutil.rmtree(run / "ema")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UsageError, match="no snapshots"):
        ema(run, sigma_rel=0.1, console=Console("quiet"))


def test_without_snapshots_the_averages_in_the_checkpoints_do_or_are_said_not_to(run, tracked):
    """Of two widths at a few steps: nearer to the average that was tracked than either of them."""
    shutil.rmtree(run / "ema")
    console = Said()
    ema(run, console=console)
    assert any("only what it tracked is compared" in line for line in console.lines)
    for folder in checkpoint.folders(run):
        tensors = store.read_tensors(folder / "training.safetensors")

        def write(new, folder=folder, tensors=tensors):
            shutil.copytree(folder, new, dirs_exist_ok=True)
            (new / "manifest.json").unlink()
            gone = tuple(f"ema.{s}." for s in NEVER_STORED)
            store.write_tensors(
                new / "training.safetensors", {k: v for k, v in tensors.items() if not k.startswith(gone)}
            )

        store.write_folder(folder, write, replace=True)
    console = Said()
    made = langevin.load(ema(run, sigma_rel=0.08, console=console))
    want = _tracked(tracked, 0.08)
    found = _vector({k: made.denoiser.network.get_parameter(k).detach() for k in want})
    miss = (found - _vector(want)).norm()
    for width in (0.05, 0.1):
        assert miss < 0.6 * (_vector(_tracked(tracked, width)) - _vector(want)).norm()
    assert any("kept no snapshots" in line for line in console.lines)
    assert any(line.startswith("checkpoints") and "is met within" in line for line in console.lines)
    with pytest.raises(UsageError, match="checkpoints do not reach a width") as caught:
        ema(run, sigma_rel=0.25, console=Console("quiet"))
    assert "`snapshots` over 0" in caught.value.help
    assert not (run / "ema-0.25").exists()


def test_widths_are_tried_at_the_end_where_the_training_was_long_enough():
    assert averages.affordable(400, 12, 256 * 8) == 0
    assert averages.affordable(100_000, 32, 256 * 8) == len(averages.FEW)
    assert averages.affordable(2000, 32, 256 * 8) == int(0.015 * 3 * 64_000 / 2048) == 1

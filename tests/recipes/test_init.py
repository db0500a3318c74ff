"""Warm start: the same bits before the first step, rows by the names of classes, nothing dropped without a word, nothing run."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import langevin
from langevin import data, store
from langevin.cli.main import run as command
from langevin.config import parse
from langevin.errors import RefusedError, UsageError
from langevin.recipes import init, plan
from langevin.recipes.console import Console
from langevin.recipes.train import train
from tests.models import digits_like, small_model

TINY = "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}"


def _folder(root: Path, names: tuple[str, str], count: int = 160, seed: int = 0) -> Path:
    for k, (picture, label) in enumerate(zip(*digits_like(count, seed), strict=True)):
        target = root / names[label] / f"{k:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target)
    return root


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A finished run on pictures with a bright left or right half."""
    root = tmp_path_factory.mktemp("old")
    settings = {"network": TINY, "batch": "12", "schedule.sigma_max": "50", "parametrization.sigma_data": "0.6"}
    return train(
        _folder(root / "halves", ("left", "right")), steps=150, settings=settings, runs=root, console=Console("quiet")
    )


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """Other pictures of the same kind; one class has another name and place."""
    return _folder(tmp_path_factory.mktemp("new") / "more", ("left", "east"), seed=1)


def _first(path, **settings):
    """(config, model, what was said) as a run has them before its first step."""
    dataset, said = data.open(path), []
    config = plan.resolve(parse({"data": {"path": str(path)}, "steps": 5, "batch": 12, **settings}), dataset)
    model = plan.make(config, dataset)
    init.begin(model, config, said.append)
    return config, model, said


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_weights_before_the_first_step_are_those_of_the_run(old, weights):
    _, model, said = _first(old.path.parent / "halves", init=f"{old.path}:{weights}")
    expected = langevin.load(old.path, weights=weights).denoiser.network.state_dict()
    found = model.denoiser.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], expected[k]) for k in expected)
    assert f"loaded     {len(expected)} tensors" in said
    assert init.source(f"{old.path}").digest[:16] in said[0]


def test_a_new_run_takes_what_the_weights_mean_and_begins_lower(old, new, in_tmp):
    warm = train(new, steps=3, seed=5, init=old.path, settings={"batch": "12"}, console=Console("quiet"))
    described, before = warm.model.describe(), old.model.describe()
    for noun in ("schedule", "parametrization", "codec"):
        assert described[noun] == before[noun]
    assert {**described["network"], "conditions": None} == {**before["network"], "conditions": None}
    config = yaml.safe_load((warm.path / "config.yaml").read_text())
    assert config["weight"] == {"name": "karras", "sigma_data": 0.6}
    assert config["init"] == str(old.path.absolute())
    assert f"from the weights of {old.path.name}" in (warm.path / "model/README.md").read_text()
    same = {"network": TINY, "batch": "12", "schedule.sigma_max": "50", "parametrization.sigma_data": "0.6"}
    cold = train(new, steps=3, seed=5, settings=same, console=Console("quiet"))
    first = [json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])["loss"] for run in (warm, cold)]
    assert first[0] < 0.8 * first[1]


def test_what_the_user_says_outranks_the_old_model(old, new):
    changes = {"parametrization": {"sigma_data": 0.4}, "network": {"dropout": 0.2}, "schedule": {"name": "ve"}}
    config, model, _ = _first(new, init=str(old.path), **changes)
    assert config.parametrization == {
        **langevin.registry.describe(old.model.denoiser.parametrization),
        "sigma_data": 0.4,
    }
    assert config.weight["sigma_data"] == 0.4
    assert model.denoiser.network.config["widths"] == [8, 8]
    assert model.denoiser.network.config["dropout"] == 0.2
    assert config.schedule == {"name": "ve"}


def test_classes_are_matched_by_name_and_a_new_one_starts_as_none(old, new):
    _, model, said = _first(new, init=str(old.path))
    assert old.model.classes == ("left", "right")
    assert model.classes == ("east", "left")
    assert (
        "classes    conditions.classes.label.weight: 1 of 2 by name; new ones start as no class: east; gone: right"
        in said
    )
    x, c = torch.randn(3, 1, 8, 8), torch.zeros(3)
    pairs = {1: 0, 0: 2, 2: 2}  # index of the class now -> then; the last means none
    for now, then in pairs.items():
        label = [{"label": torch.full((3,), k)} for k in (now, then)]
        a = model.denoiser.network.eval()(x, c, label[0])
        assert torch.equal(a, old.model.denoiser.network.eval()(x, c, label[1]))


def _file(path: Path, tensors) -> str:
    store.write_tensors(path, tensors)
    return str(path)


def test_a_foreign_file_is_matched_by_name_below_its_prefix(new, tmp_path):
    network = small_model(("east", "left")).denoiser.network
    tensors = {f"module.{k}": v.half() for k, v in network.state_dict().items()}
    _, model, said = _first(new, init=_file(tmp_path / "f.safetensors", tensors), network=yaml.safe_load(TINY))
    for name, value in model.denoiser.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name].half().float())
    assert f"loaded     {len(tensors)} tensors" in said
    assert len(said) == 2


def test_a_models_own_file_gives_its_averages(old, new):
    config = {"init": str(old.path / "model/model.safetensors"), "network": yaml.safe_load(TINY)}
    _, model, _ = _first(new, **config)
    expected = langevin.load(old.path).denoiser.network.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in model.denoiser.network.state_dict().items())


def test_all_that_does_not_fit_is_told_and_refused_unless_the_rest_may_start_fresh(new, tmp_path):
    tensors = {k: v + 1 for k, v in small_model(("east", "left")).denoiser.network.state_dict().items()}
    tensors["leave.weight"] = torch.zeros(1, 8, 5, 5)
    tensors["another.weight"] = torch.zeros(3)
    del tensors["enter.bias"]
    where = {"init": _file(tmp_path / "f.safetensors", tensors), "network": yaml.safe_load(TINY)}
    with pytest.raises(UsageError) as caught:
        _first(new, **where)
    for said in ("enter.bias", r"leave.weight (1, 8, 5, 5), not (1, 8, 3, 3)", "another.weight", "--init-partial"):
        assert said in str(caught.value)
    dataset = data.open(new)
    fresh = plan.make(plan.resolve(parse({"data": {"path": str(new)}, "network": where["network"]}), dataset), dataset)
    _, model, said = _first(new, **where, init_partial=True)
    found, untouched = model.denoiser.network.state_dict(), fresh.denoiser.network.state_dict()
    assert torch.equal(found["enter.weight"], tensors["enter.weight"])
    assert torch.equal(found["enter.bias"], untouched["enter.bias"])
    assert torch.equal(found["leave.weight"], untouched["leave.weight"])
    assert said[1] == f"loaded     {len(tensors) - 2} tensors"
    assert [line[:8] for line in said[2:]] == ["missing ", "shape   ", "not used"]
    with pytest.raises(UsageError, match="no tensor there fits"):
        _first(new, init=_file(tmp_path / "g.safetensors", {"x": torch.zeros(2)}), init_partial=True)


def test_pictures_of_another_shape_and_number_of_channels_are_told(old, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "wide.npy", rng.integers(0, 255, (40, 10, 10), np.uint8))
    _, _, said = _first(tmp_path / "wide.npy", init=str(old.path), init_partial=True)
    assert "note       the weights come from data of 1 x 8 x 8; these are 1 x 10 x 10" in said
    np.save(tmp_path / "colour.npy", rng.integers(0, 255, (40, 8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=r"enter.weight \(8, 1, 3, 3\), not \(8, 3, 3, 3\)"):
        _first(tmp_path / "colour.npy", init=str(old.path))
    _, model, _ = _first(tmp_path / "colour.npy", init=str(old.path), init_partial=True)
    inner = "down.0.0.conv.weight"
    assert torch.equal(model.denoiser.network.state_dict()[inner], old.model.denoiser.network.state_dict()[inner])


def test_float_data_keep_the_scale_that_the_weights_know(in_tmp):
    pictures = digits_like(120)[0].astype(np.float32)
    np.save("a.npy", pictures / 255)
    np.save("b.npy", pictures / 100)
    settings = {"network": TINY, "batch": "12"}
    first = train("a.npy", steps=2, settings=settings, console=Console("quiet"))
    _, model, _ = _first("b.npy", init=str(first.path))
    assert model.codec.config == first.model.codec.config
    x = torch.from_numpy(pictures[:2, :, :, None] / 255)
    assert torch.equal(model.codec.encode(x), first.model.codec.encode(x))
    own = plan.codec_of(parse({"data": {"path": "b.npy"}}), data.open("b.npy"))
    assert own.config["high"] != first.model.codec.config["high"]


def test_a_stopped_run_goes_on_without_what_it_started_from(old, new, in_tmp):
    shutil.copytree(old.path, "source")
    settings = {"batch": "12"}
    run = train(new, steps=4, init="source", freeze=["down.*"], settings=settings, console=Console("quiet"))
    frozen = langevin.load(run.path, weights="raw").denoiser.network.state_dict()
    before = old.model.denoiser.network.state_dict()
    for name, value in frozen.items():
        assert torch.equal(value, before[name]) == name.startswith("down."), name
    shutil.rmtree("source")
    (run.path / "figures.json").unlink()  # as if it were not finished
    again = train(resume=run.path, console=Console("quiet"))
    assert np.array_equal(run.model.sample(3), again.model.sample(3))


class Harm:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_nothing_in_a_source_is_run(new, in_tmp):
    Path("weights.pt").write_bytes(pickle.dumps(Harm()))
    Path("weights.safetensors").write_bytes(pickle.dumps(Harm()))
    for name in ("weights.pt", "weights.safetensors"):
        with pytest.raises(RefusedError) as caught:
            init.source(name)
        assert caught.value.exit_code == 7
        assert command(["train", str(new), "--steps", "2", "--init", name]) == 7
    assert not Path("ran").exists()
    assert not Path("runs").exists()


def test_mistakes_on_the_command_line_leave_no_folder(old, new, in_tmp, capsys):
    start = ["train", str(new), "--steps", "2", "--set", "batch=12", "--init", str(old.path)]
    for more, said in (
        (["--freeze", "dwon.*"], "did you mean `down.*`"),
        (["--freeze", "*"], "nothing is left to train"),
        (["--set", "network.widths=[16,16]"], "--init-partial"),
        (["--set", "optimizer.name=moun"], "did you mean `muon`"),
    ):
        assert command([*start, *more]) == 2
        assert said in capsys.readouterr().err
    assert command(["train", str(new), "--steps", "2", "--init", str(old.path) + "-9"]) == 2
    assert not list(Path("runs").glob("*")) if Path("runs").exists() else True
    assert command([*start, "--freeze", "down.*", "--freeze", "up.*"]) == 0
    said = capsys.readouterr().out
    assert "M trained)" in said
    assert "classes    conditions.classes.label.weight: 1 of 2 by name" in said

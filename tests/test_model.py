"""A model folder gives back the same bits, executes nothing, and its samples are functions of their seeds."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import langevin
from langevin import store
from langevin.errors import RefusedError, UsageError
from langevin.guidance import ClassifierFree, Interval
from langevin.registry import describe
from langevin.rng import keyed
from langevin.solvers import trajectory
from langevin.solvers.default import default
from langevin.solvers.grids import Karras, Times
from tests.models import small_model


def test_save_then_load_gives_the_same_bits(tmp_path):
    model = small_model()
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    cond = {"label": torch.tensor([0, 2, 1])}
    model.save(tmp_path / "m")
    loaded = langevin.load(tmp_path / "m")
    assert torch.equal(loaded.denoiser(x, t, cond).mean, model.denoiser(x, t, cond).mean)
    assert np.array_equal(loaded.sample(5, seed=3), model.sample(5, seed=3))
    assert loaded.describe() == model.describe()
    assert loaded.digest == store.digest(tmp_path / "m/model.safetensors")
    with pytest.raises(UsageError, match="something already"):
        model.save(tmp_path / "m")


def test_raw_and_averaged_weights_are_kept_apart(tmp_path):
    model = small_model()
    model.raw = {k: v + 1 for k, v in model.denoiser.network.state_dict().items()}
    model.save(tmp_path / "m")
    ema, raw = langevin.load(tmp_path / "m"), langevin.load(tmp_path / "m", weights="raw")
    for a, b in zip(ema.denoiser.network.parameters(), raw.denoiser.network.parameters(), strict=True):
        assert torch.equal(a + 1, b)


@pytest.mark.parametrize("solver", ["dpmpp", "heun", "ancestral", {"name": "ddim", "eta": 0.7}])
def test_a_sample_is_a_function_of_its_seed(solver):
    model = small_model()
    together = model.sample(8, seed=10, solver=solver)
    apart = np.concatenate([model.sample(4, seed=14, solver=solver), model.sample(4, seed=10, solver=solver)])
    order = [4, 5, 6, 7, 0, 1, 2, 3]
    assert np.abs(together[order].astype(int) - apart.astype(int)).max() <= 1  # rounding may fall on either side
    exact = model.sample(seeds=[17, 10], solver=solver, exact=True)
    alone = [model.sample(1, seed=s, solver=solver, exact=True)[0] for s in (17, 10)]
    assert np.array_equal(exact, np.stack(alone))
    assert not np.array_equal(exact[0], exact[1])


def test_sampling_is_the_trajectory_of_the_nouns_below():
    model = small_model(())
    noise, times = keyed([5, 6]), Karras()(model.denoiser.process.schedule, 4)
    x = model.denoiser.process.prior((2, 1, 8, 8), noise(0))
    for step in trajectory(model.denoiser, model.solver(), x, times, noise=noise):
        x = step.x
    want = model.codec.decode(x).numpy()
    assert np.array_equal(model.sample(2, seed=5, steps=4), want)


def test_products_of_bfloat16_give_nearly_the_same_samples():
    """Eight bits of mantissa are an error of 1 / 256 in a product; and it is the network's products that have it."""
    model = small_model()
    wide = model.sample(16, seed=5).astype(int)
    half = model.sample(16, seed=5, precision="bfloat16").astype(int)
    assert 0 < np.abs(wide - half).mean() < 2
    model.sampling |= {"precision": "bfloat16"}
    assert np.array_equal(model.sample(16, seed=5), half)
    assert np.array_equal(model.sample(16, seed=5, precision="float32"), wide)


def test_labels_by_name_by_index_and_by_frequency():
    model = small_model(("cat", "dog", "3"))
    assert model.labels([1, 2, 3], ["dog", "cat", 2]).tolist() == [1, 0, 2]
    assert model.labels([1], "3").tolist() == [2]
    drawn = np.bincount(model.labels(range(6000)), minlength=3) / 6000
    expected = np.array([1, 2, 3]) / 6
    assert np.abs(drawn - expected).max() < 4 * np.sqrt(0.25 / 6000)
    assert model.labels([7, 8, 9]).tolist() == [model.labels([s])[0] for s in (7, 8, 9)]
    with pytest.raises(UsageError, match="did you mean `dog`"):
        model.sample(1, label="dogg")
    with pytest.raises(UsageError, match="without labels"):
        small_model(()).sample(1, label="cat")


def test_the_label_and_guidance_reach_the_samples():
    model = small_model()
    one, other = model.sample(2, label="cat"), model.sample(2, label="dog")
    assert not np.array_equal(one, other)
    assert not np.array_equal(model.sample(2, label="cat", guidance=3.0), one)


def test_guidance_settings_are_the_wrappers_they_name():
    model = small_model()
    plain, cat = model.denoiser, {"label": torch.tensor([0])}
    same = [
        ({"guidance": 3.0}, lambda d: ClassifierFree(d, 3.0)),
        ({"guidance": 3.0, "guidance_rescale": 0.7}, lambda d: ClassifierFree(d, 3.0, rescale=0.7)),
        ({"guidance": 3.0, "guidance_interval": [0.3, 5]}, lambda d: Interval(ClassifierFree(d, 3.0), d, 0.3, 5.0)),
        ({"guidance": 3.0, "negative_label": "cat"}, lambda d: ClassifierFree(d, 3.0, against=cat)),
    ]
    drawn = []
    for settings, wrap in same:
        drawn.append(model.sample(2, label="dog", **settings))
        assert np.array_equal(drawn[-1], model.sample(2, label="dog", guidance=wrap))
        assert not np.array_equal(drawn[-1], model.sample(2, label="dog"))
        assert model.denoiser is plain
    assert len({a.tobytes() for a in drawn}) == len(drawn)


def test_layout_follows_the_data():
    assert small_model(squeeze=False).sample(2).shape == (2, 8, 8, 1)
    found = small_model(squeeze=True).sample(2)
    assert found.shape == (2, 8, 8)
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"steps": 10**6},
        {"steps": float("nan")},
        {"steps": 2.5},
        {"solver": {"name": "rk45", "rtol": 0.0}},
        {"solver": {"name": "restart", "intervals": [[1.0, 0.5, 1, 1]]}},
        {"solver": {"name": "predictor_corrector", "predictor": {"name": "ddmi"}}},
        {"n": 0},
        {"guidance": float("nan")},
        {"guidance": 1e9},
        {"guidance": -1},
        {"seed": -3},
        {"solver": "dpmmpp"},
        {"grid": "karas"},
        {"solver": "ddim:nonsense"},
        {"label": ["cat"], "n": 2},
        {"guidance_rescale": 0.5},
        {"negative_label": "dog"},
        {"guidance": 2, "negative_label": "dogg"},
        {"guidance": 2, "guidance_rescale": 1.5},
        {"guidance": 2, "guidance_interval": [2, 1]},
        {"guidance": 2, "guidance_interval": [2]},
        {"guidance": lambda d: d, "guidance_rescale": 0.5},
        {"precision": "float16"},
    ],
)
def test_values_that_cannot_be_are_usage_errors(settings):
    with pytest.raises(UsageError):
        small_model().sample(**settings)


def test_extreme_guidance_gives_pictures_and_no_nan():
    assert small_model().sample(2, guidance=1000, steps=1).dtype == np.uint8


def test_foreign_and_damaged_models_are_refused_with_exit_code_7(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for name in ("model.pt", "model.ckpt", "weights.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload()))
        folder = tmp_path / f"folder-{name}"
        folder.mkdir()
        (folder / name).write_bytes(pickle.dumps(Payload()))
        for path in (tmp_path / name, folder):
            with pytest.raises(RefusedError) as caught:
                langevin.load(path)
            assert caught.value.exit_code == 7
            assert "safetensors" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def _changed(tmp_path: Path, **changes) -> Path:
    folder = small_model().save(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    manifest = json.loads((folder / "manifest.json").read_text())
    file = folder / "config.json"
    manifest["config.json"] = {"sha256": store.digest(file), "size": file.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 99},
        {"network": {"name": "os:system"}},
        {"schedule": {"name": "shifted", "base": {"name": "subprocess:Popen"}, "shift": 2}},
        {"parametrization": {"name": "karras", "sigma_date": 0.5}},
        {"codec": {"name": "pixels"}},
        {"network": {"name": "mlp", "channels": 3}},
        {"shape": None},
    ],
)
def test_a_config_that_is_newer_hostile_or_wrong_is_refused(tmp_path, changes):
    with pytest.raises(RefusedError):
        langevin.load(_changed(tmp_path, **changes))


def test_no_name_in_a_model_folder_imports_code(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\nclass X: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for sampling in (
        {"solver": "evil:X"},
        {"grid": {"name": "evil:X"}},
        {"solver": {"name": "ddim", "eta": {"name": "evil:X"}}},
    ):
        folder = _changed(tmp_path, sampling=sampling)
        with pytest.raises(UsageError):
            langevin.load(folder).sample(1)
        shutil.rmtree(folder)
    assert not Path("ran").exists()
    with pytest.raises(UsageError, match="is not a Solver"):  # a program of one's own may choose its own code
        small_model().sample(1, solver="evil:X")
    assert Path("ran").exists()


def test_a_flipped_byte_in_the_weights_is_named(tmp_path):
    folder = small_model().save(tmp_path / "m")
    body = bytearray((folder / "model.safetensors").read_bytes())
    body[-5] ^= 4
    (folder / "model.safetensors").write_bytes(body)
    with pytest.raises(RefusedError, match=r"model\.safetensors"):
        langevin.load(folder)


def test_a_missing_run_names_the_nearest(tmp_path):
    small_model().save(tmp_path / "digits-1")
    with pytest.raises(UsageError, match="did you mean `digits-1`"):
        langevin.load(tmp_path / "digit-1")


def test_where_nothing_is_named_the_number_of_steps_decides():
    model = replace(small_model(), sampling={"steps": 12})
    for steps in (1, 7, 8, 40):
        assert model.method(steps) == (steps, *default(steps))
    assert np.array_equal(
        model.sample(2, seed=1, steps=5), model.sample(2, seed=1, steps=5, solver=default(5)[0], grid=default(5)[1])
    )
    assert type(model.method(7, solver="heun")[1]).__name__ == "Heun"
    assert model.method(7, solver="heun")[2] == default(7)[1]


def test_a_model_keeps_the_solver_and_grid_it_was_saved_with():
    kept = {"solver": {"name": "dpmpp"}, "grid": {"name": "karras", "rho": 5.0, "ratio_min": 0.02}, "steps": 9}
    steps, solver, grid = replace(small_model(), sampling=kept).method()
    assert steps == 9 and describe(solver)["name"] == "dpmpp" and grid == Karras(5.0, 0.02)


def test_what_was_tuned_serves_its_number_of_steps_until_something_is_named():
    times = {"name": "times", "times": [1.0, 0.6, 0.1, 0.0]}
    model = replace(small_model(), sampling={"tuned": {"3": {"solver": {"name": "ddim"}, "grid": times}}})
    assert describe(model.method(3)[1])["name"] == "ddim" and model.method(3)[2] == Times((1.0, 0.6, 0.1, 0.0))
    assert model.method(4) == (4, *default(4))
    assert model.method(3, grid="karras")[1:] == (default(3)[0], Karras())

"""Samples on disk can be made again from what is written in them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langevin.data.png import encoded, read_metadata
from langevin.errors import RefusedError, UsageError
from langevin.recipes.sample import replay, sample
from tests.models import small_model


@pytest.fixture
def run(in_tmp) -> Path:
    small_model().save(in_tmp / "runs/small-1/model")
    return Path("runs/small-1")


def _quiet(_: str) -> None:
    pass


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "ancestral", "steps": 3, "label": ["dog", "cat"], "guidance": 2.0},
        {
            "label": ["dog"],
            "guidance": 3.0,
            "guidance_interval": [0.1, 9.0],
            "guidance_rescale": 0.5,
            "negative_label": "cat",
        },
        {"precision": "bfloat16"},
    ],
)
def test_replay_gives_the_same_picture(run, settings):
    (made,) = sample(run, 5, seed=7, out=Path("out/grid.png"), say=_quiet, **settings)
    (again,) = replay(made, out=Path("again.png"), say=_quiet)
    assert np.array_equal(_pixels(made), _pixels(again))
    rows = read_metadata(made)["pictures"]
    assert [row["seed"] for row in rows] == [7, 8, 9, 10, 11]
    if settings.get("solver"):
        assert [row["class"] for row in rows] == ["dog", "cat", "dog", "cat", "dog"]


def test_a_recipe_from_before_there_was_a_precision_is_replayed(run):
    (made,) = sample(run, 1, out=Path("new.png"), say=_quiet)
    recipe = read_metadata(made)
    assert recipe.pop("precision") == "float32"
    Path("old.png").write_bytes(encoded(np.asarray(Image.open(made)).reshape(8, 8, 1), recipe))
    (again,) = replay(Path("old.png"), out=Path("again.png"), say=_quiet)
    assert np.array_equal(_pixels(made), _pixels(again))


def test_one_of_a_folder_is_replayed_alone(run):
    made = sample(run, 3, seed=1, out=Path("folder"), exact=True, say=_quiet)
    assert [p.name for p in made] == ["00000.png", "00001.png", "00002.png"]
    (again,) = replay(made[2], out=Path("again.png"), say=_quiet)
    assert np.array_equal(_pixels(made[2]), _pixels(again))


def test_npz_holds_the_arrays_and_labels(run):
    (made,) = sample(run, 4, seed=2, label=["3"], out=Path("s.npz"), say=_quiet)
    found = np.load(made)
    assert found["images"].shape == (4, 8, 8, 1)
    assert found["labels"].tolist() == [2, 2, 2, 2]


def test_a_moved_run_is_found_by_its_weights_and_no_absolute_path_is_written(run, in_tmp):
    (made,) = sample(run.absolute(), 2, out=Path("g.png"), say=_quiet)
    assert str(in_tmp) not in json.dumps(read_metadata(made))
    Path("runs/small-1").rename("runs/renamed-1")
    (again,) = replay(made, out=Path("again.png"), say=_quiet)
    assert np.array_equal(_pixels(made), _pixels(again))
    shutil.rmtree("runs/renamed-1")
    with pytest.raises(UsageError, match="not found"):
        replay(made, out=Path("third.png"), say=_quiet)


def test_a_run_outside_the_working_folder_is_named_without_its_path(run, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("alice") / "small-9"
    shutil.copytree(run, elsewhere)
    (made,) = sample(elsewhere, 1, out=Path("o.png"), say=_quiet)
    assert read_metadata(made)["run"] == "small-9"
    (again,) = replay(made, out=Path("again.png"), say=_quiet)  # the same weights lie in runs/small-1
    assert np.array_equal(_pixels(made), _pixels(again))


def test_a_damaged_run_does_not_hide_the_others(run):
    (made,) = sample(run, 1, out=Path("o.png"), say=_quiet)
    Path("runs/a-damaged-1/model").mkdir(parents=True)
    Path("runs/a-damaged-1/model/config.json").write_text("{")
    Path("runs/small-1").rename("runs/z-1")
    assert replay(made, out=Path("again.png"), say=_quiet)


@pytest.mark.parametrize(("n", "out"), [(0, "a.png"), (2000, "a.png"), (10**12, "a.npz"), (1, "a.jpg")])
def test_impossible_targets_are_refused_before_anything_is_drawn(run, n, out):
    with pytest.raises(UsageError):
        sample(run, n, out=Path(out), say=_quiet)


def test_nothing_is_overwritten_and_new_names_count_up(run):
    first, second = (sample(run, 1, say=_quiet)[0] for _ in range(2))
    assert (first.name, second.name) == ("samples-1.png", "samples-2.png")
    with pytest.raises(UsageError, match="something already"):
        sample(run, 1, out=first, say=_quiet)


def test_pictures_without_or_with_hostile_recipes_are_refused(run):
    (made,) = sample(run, 1, out=Path("plain.png"), metadata=False, say=_quiet)
    with pytest.raises(UsageError, match="no recipe"):
        replay(made, say=_quiet)
    (good,) = sample(run, 1, out=Path("good.png"), say=_quiet)
    recipe = read_metadata(good)
    for k, change in enumerate(
        [
            {"solver": {"name": "os:system"}},
            {"solver": {"name": "ddim", "eta": {"name": "this:s"}}},
            {"seed": "x"},
            {"label": 99},
            {"grid": 4},
            {"steps": 10**7},
        ]
    ):
        bad = Path(f"bad-{k}.png")
        bad.write_bytes(encoded(np.zeros((8, 8, 1), np.uint8), {**recipe, **change}))
        with pytest.raises((RefusedError, UsageError)):
            replay(bad, say=_quiet)

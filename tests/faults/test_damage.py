"""A flipped byte or a cut in any file of a run is noticed or harmless: no other weights are ever taken for the run's."""

import shutil

import pytest

from langevin import store
from langevin.errors import LangevinError, RefusedError
from langevin.model import load
from langevin.recipes.checkpoints import look, table
from langevin.training import checkpoint
from tests.faults import tiny

CUT = -1


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """(a run that was stopped before its model was published, what it would have ended as)."""
    folder = tmp_path_factory.mktemp("stopped")
    run = tiny.begin(tiny.pictures(folder), folder / "runs")
    expected = tiny.outcome(run)
    (run / "figures.json").unlink()
    return run, expected


def _harm(path, place: int) -> None:
    body = bytearray(path.read_bytes())
    if place == CUT:
        body = body[: len(body) // 2]
    else:
        body[place % len(body)] ^= 1 << (place % 8)
    path.write_bytes(body)


@pytest.mark.parametrize(
    "places", [(CUT,), pytest.param((0, 7, 40, 1009, 2003), marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_each_file_of_a_run_is_damaged_in_turn(stopped, tmp_path, places):
    run, expected = stopped
    noticed, harmless = [], []
    files = [f.relative_to(run) for f in sorted(run.rglob("*")) if f.is_file() and f.stat().st_size]
    for name in files:
        for place in places:
            copy = tmp_path / "copy"
            shutil.copytree(run, copy)
            _harm(copy / name, place)
            try:
                tiny.go_on(copy)
                found = tiny.outcome(copy)
            except LangevinError:
                noticed.append(name)
            else:
                assert {**found, "rows": 0} == {**expected, "rows": 0}, (name, place)
                harmless.append(name)
            shutil.rmtree(copy)
    assert len(noticed) + len(harmless) == len(files) * len(places)


def test_a_damaged_model_is_not_loaded(stopped, tmp_path):
    run, _ = stopped
    for name in ("model.safetensors", "config.json", "manifest.json"):
        shutil.copytree(run / "model", tmp_path / "model")
        _harm(tmp_path / "model" / name, CUT)
        with pytest.raises(RefusedError):
            load(tmp_path / "model")
        shutil.rmtree(tmp_path / "model")


def test_a_list_of_checkpoints_says_which_is_sound(stopped, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "run")
    newest, before = checkpoint.folders(tmp_path / "run")[:2]
    assert [one.wrong for one in look(tmp_path / "run")] == ["", ""]
    _harm(newest / "training.safetensors", 9)
    found = look(tmp_path / "run")
    assert "training.safetensors" in found[0].wrong and not found[1].wrong
    assert found[1].size == sum(f.stat().st_size for f in before.iterdir())
    assert [int(line.split()[0]) for line in table(found).splitlines()[1:]] == [3, 2]
    assert newest.exists()


def test_moved_renamed_and_with_other_times_it_goes_on_from_the_highest_step(stopped, tmp_path):
    """The clock says that the older checkpoint is the newer one."""
    import os

    shutil.copytree(stopped[0], tmp_path / "elsewhere" / "renamed")
    run = tmp_path / "elsewhere" / "renamed"
    newest, before = checkpoint.folders(run)[:2]
    os.utime(newest, (0, 0))
    os.utime(before, (2**31, 2**31))
    assert checkpoint.newest(run, print) == newest
    tiny.go_on(run)
    assert tiny.outcome(run) == stopped[1]


def test_a_newer_format_is_refused_with_both_versions_and_an_older_one_is_read_as_it_is(stopped, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "run")
    newest = checkpoint.folders(tmp_path / "run")[0]
    facts = store.read_json(newest / "state.json")
    numbers = facts["numbers"]
    numbers |= numbers.pop("clock")

    def rewritten(state: dict) -> None:
        import json

        def write(folder) -> None:
            for name in checkpoint.PARTS:
                shutil.copy(newest / name, folder / name)
            (folder / "state.json").write_text(json.dumps(state))

        store.write_folder(newest, write, replace=True)

    rewritten({"format": checkpoint.FORMAT + 1, "langevin": "99.0"})
    with pytest.raises(RefusedError, match=rf"format {checkpoint.FORMAT + 1}, written by langevin 99.0.*up to format"):
        tiny.go_on(tmp_path / "run")
    rewritten({k: numbers[k] for k in ("step", "elapsed", "rate", "skipped", "began")})  # as format 1 was
    bytes_of = {f.name: f.read_bytes() for f in newest.iterdir()}
    tiny.go_on(tmp_path / "run")
    assert store.digest(tmp_path / "run/model/model.safetensors") == stopped[1]["model"]
    assert {f.name: f.read_bytes() for f in newest.iterdir()} == bytes_of

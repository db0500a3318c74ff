"""Averages made after the run are those that would have been tracked, from few snapshots that any resume gives again."""

import json
import shutil
import weakref

import numpy as np
import pytest
import torch

from langevin import store
from langevin.errors import RefusedError, UsageError
from langevin.training import ema
from langevin.training.snapshots import KEEP, Snapshots, folders, rebuild, sound

STORED, NEVER_STORED = (0.05, 0.1), (0.06, 0.08, 0.12, 0.15, 0.2)


class Walk:
    """Weights that walk at random and drift, at a pace that falls to zero, with their averages."""

    def __init__(self, steps: int = 512, size: int = 300, widths: tuple[float, ...] = STORED, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        share = np.arange(1, steps + 1)[:, None] / steps
        pace = np.cos(share * np.pi / 2)
        moves = pace * (rng.standard_normal((steps, size)) / np.sqrt(steps) + rng.standard_normal(size) / steps)
        self.path = torch.from_numpy(rng.standard_normal(size) + np.cumsum(moves, 0)).float()
        self.steps, self.step = steps, 0
        self.averages = {s: {"a": torch.zeros(size - 1), "b": torch.zeros(1)} for s in widths}
        self.like = {"a": self.path[0, 1:], "b": self.path[0, :1]}

    def go(self, until: int, *looks):
        """Steps up to `until`; each of `looks` looks after each of them."""
        for step in range(self.step + 1, until + 1):
            self.step, now = step, self.path[step - 1]
            for s, average in self.averages.items():
                ema.update(average.values(), [now[1:], now[:1]], self.step, s)
            for look in looks:
                look.look(self.step, self.step / self.steps, self.stored)
        return self

    def stored(self):
        return {s: self.averages[s] for s in STORED}


def _bytes(run):
    return {f.relative_to(run): f.read_bytes() for f in sorted((run / "ema").rglob("*")) if f.is_file()}


def _vector(tensors):
    return torch.cat([v.double().flatten() for v in tensors.values()])


def _miss(rebuilt, tracked) -> float:
    """Distance from a tracked average as a share of its norm."""
    a, b = _vector(rebuilt), _vector(tracked)
    return ((a - b).norm() / b.norm()).item()


def test_widths_never_stored_are_those_that_were_tracked(tmp_path):
    walk = Walk(widths=(*STORED, *NEVER_STORED))
    walk.go(512, Snapshots(tmp_path, 0, 0.0, print))
    assert len(folders(tmp_path)) == KEEP
    snapshots = sound(tmp_path, walk.like, print)
    for one in rebuild(snapshots, NEVER_STORED, walk.like):
        tracked = walk.averages[one.profile.sigma_rel]
        assert _miss(one.tensors, tracked) < 2e-3
        away = (_vector(tracked) - walk.path[-1].double()).norm()  # the average is not merely near the last weights
        assert (_vector(one.tensors) - _vector(tracked)).norm() < 0.02 * away
    for one in rebuild(snapshots, STORED, walk.like):
        assert _miss(one.tensors, walk.averages[one.profile.sigma_rel]) < 1e-6


def test_an_earlier_step_is_given_too(tmp_path):
    walk = Walk()
    walk.go(512, Snapshots(tmp_path, 0, 0.0, print))
    early = Walk(widths=(0.12,)).go(256)
    (one,) = rebuild(sound(tmp_path, walk.like, print), [0.12], walk.like, step=256)
    assert _miss(one.tensors, early.averages[0.12]) < 5e-3
    between, after = (
        rebuild(sound(tmp_path, walk.like, print), [0.12], walk.like, step=step)[0] for step in (500, 600)
    )
    assert after.error > between.error > 0.1 > one.error


@pytest.mark.parametrize(("planned", "last"), [(512, 301), (8000, 4803)])
def test_a_run_that_ends_early_has_a_snapshot_of_its_last_step(tmp_path, planned, last):
    walk, snapshots = Walk(planned, widths=(*STORED, 0.15)), Snapshots(tmp_path, 0, 0.0, print)
    walk.go(last, snapshots)
    snapshots.finish(last, walk.stored())
    assert max(folders(tmp_path)) == last
    (one,) = rebuild(sound(tmp_path, walk.like, print), [0.15], walk.like)
    assert _miss(one.tensors, walk.averages[0.15]) < 5e-3


def test_snapshots_are_few_and_spread_at_every_moment(tmp_path):
    walk, snapshots = Walk(1000, 4), Snapshots(tmp_path, 0, 0.0, print)
    for until in range(1, 1001):
        walk.go(until, snapshots)
        steps = list(folders(tmp_path))
        assert len(steps) <= KEEP
        if until >= 300:
            gaps = np.diff([0, *steps, until])
            assert len(steps) > KEEP / 2
            assert max(gaps) <= until / KEEP * 2 + 16  # marks of the finest grid are 16 steps apart


@pytest.mark.parametrize("stops", [(37,), (100, 333, 511), (512,)])
def test_stopped_and_resumed_leaves_the_same_snapshots(tmp_path, stops):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Walk().go(512, Snapshots(whole, 0, 0.0, print))
    back = 0
    for stop in stops:  # the run is killed at `stop` and its last checkpoint is 30 steps old
        walk = Walk().go(back)
        walk.go(stop, Snapshots(parts, back, back / 512, print))
        back = stop - 30
    walk = Walk().go(back)
    walk.go(512, Snapshots(parts, back, back / 512, print))
    assert _bytes(whole) == _bytes(parts)


def test_under_a_longer_budget_there_are_as_many_and_they_reach_as_far(tmp_path):
    walk = Walk(widths=(*STORED, *NEVER_STORED))
    walk.go(320, _Of(320, Snapshots(tmp_path, 0, 0.0, print, budget="320 steps")))
    assert len(folders(tmp_path)) == KEEP
    walk.go(512, _Of(512, Snapshots(tmp_path, 320, 320 / 512, print, budget="512 steps")))
    assert KEEP / 2 < len(folders(tmp_path)) <= KEEP
    for one in rebuild(sound(tmp_path, walk.like, print), NEVER_STORED, walk.like):
        assert _miss(one.tensors, walk.averages[one.profile.sigma_rel]) < 5e-3


class _Of:
    """Looks of a budget of its own."""

    def __init__(self, steps: int, snapshots: Snapshots) -> None:
        self.steps, self.snapshots = steps, snapshots

    def look(self, step, share, averages):
        self.snapshots.look(step, step / self.steps, averages)


def test_a_run_that_is_taken_back_takes_its_snapshots_again(tmp_path):
    walk, snapshots = Walk(), Snapshots(tmp_path, 0, 0.0, print)
    walk.go(300, snapshots)
    again = Walk(seed=1).go(200)
    again.go(210, snapshots)
    assert max(folders(tmp_path)) <= 210
    again.go(512, snapshots)
    assert max(folders(tmp_path)) == 512


def test_what_is_not_finite_or_damaged_is_passed_over_with_a_word(tmp_path):
    walk, said = Walk(), []
    snapshots = Snapshots(tmp_path, 0, 0.0, said.append)
    walk.go(480, snapshots)
    for bad in (float("nan"), float("inf")):
        snapshots.take(481, 128, {0.05: {**walk.averages[0.05], "b": torch.tensor([bad])}})
    assert len(said) == 2 and all("not finite" in line for line in said)
    assert 481 not in folders(tmp_path)
    walk.go(512, snapshots)
    *_, third, second, _ = steps = list(folders(tmp_path))
    (folders(tmp_path)[third] / "averages.safetensors").write_bytes(b"x")
    store.write_tensors(
        tmp_path / "bad.safetensors",
        {f"{s}.{k}": torch.full(v.shape, torch.nan) for s in STORED for k, v in walk.like.items()},
    )
    facts = (folders(tmp_path)[second] / "snapshot.json").read_text()

    def write(folder):
        shutil.copy(tmp_path / "bad.safetensors", folder / "averages.safetensors")
        (folder / "snapshot.json").write_text(facts)

    store.write_folder(folders(tmp_path)[second], write, replace=True)
    found = sound(tmp_path, walk.like, said.append)
    assert [one.step for one in found] == [s for s in steps if s not in (second, third)]
    assert "damaged" in said[2] and "not finite" in said[3]
    tracked = Walk(widths=(0.08,)).go(512).averages[0.08]
    assert _miss(rebuild(found, [0.08], walk.like)[0].tensors, tracked) < 1e-2


def test_snapshots_of_another_network_are_no_help(tmp_path):
    walk = Walk()
    walk.go(512, Snapshots(tmp_path, 0, 0.0, print))
    said = []
    assert sound(tmp_path, {**walk.like, "b": torch.zeros(2)}, said.append) == []
    assert len(said) == KEEP and "do not fit" in said[0]
    with pytest.raises(UsageError, match="no snapshots"):
        rebuild([], [0.1], walk.like)


def test_as_many_are_kept_as_are_asked_for(tmp_path):
    for keep in (0, 5):
        walk, snapshots = Walk(size=4), Snapshots(tmp_path / str(keep), 0, 0.0, print, keep=keep)
        walk.go(512, snapshots)
        snapshots.finish(512, walk.stored())
        assert len(folders(tmp_path / str(keep))) == keep


def test_a_disk_without_room_costs_a_snapshot_and_not_the_run(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    Walk().go(20, Snapshots(tmp_path, 0, 0.0, said.append))
    assert folders(tmp_path) == {} and "left out" in said[0]


def test_one_snapshot_is_in_memory_at_a_time(tmp_path, monkeypatch):
    walk = Walk()
    walk.go(512, Snapshots(tmp_path, 0, 0.0, print))
    snapshots, read, alive, most = sound(tmp_path, walk.like, print), store.read_tensors, [], []

    def counted(*arguments):
        most.append(sum(one() is not None for one in alive))
        found = read(*arguments)
        alive.extend(weakref.ref(v) for v in found.values())
        return found

    monkeypatch.setattr(store, "read_tensors", counted)
    rebuild(snapshots, NEVER_STORED, walk.like)
    assert len(most) == KEEP and max(most) == 0


def test_a_snapshot_is_a_folder_whose_manifest_holds(tmp_path):
    walk = Walk()
    walk.go(512, Snapshots(tmp_path, 0, 0.0, print))
    folder = folders(tmp_path)[512]
    store.verify(folder)
    assert json.loads((folder / "snapshot.json").read_text())["widths"] == list(STORED)
    (folder / "snapshot.json").write_text("{}")
    with pytest.raises(RefusedError):
        store.verify(folder)

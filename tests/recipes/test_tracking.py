"""Trackers are told what happened, and whatever they do, the run goes on as if they were not there."""

import json
import struct
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from langevin.config import parse, read_yaml
from langevin.errors import UsageError
from langevin.evaluation.noise_levels import LevelLoss
from langevin.recipes import tracking
from langevin.recipes.console import Console
from langevin.recipes.trackers.base import Tracker
from langevin.recipes.tracking import Tracking, kinds
from langevin.recipes.train import train
from langevin.recipes.watch import Began, Looked, Stepped
from langevin.training import Metrics
from tests.models import digits_like

QUICK = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}", "batch": "12"}
HERE = __name__


class Remembering(Tracker):
    """Keeps what it is told, in the class."""

    module: ClassVar[str] = ""
    told: ClassVar[list[tuple]] = []

    def __init__(self, folder, config, step) -> None:
        self.told.append(("made", step))

    def scalars(self, step, values) -> None:
        self.told.append(("scalars", step, dict(values)))

    def image(self, step, name, array) -> None:
        self.told.append(("image", step, name, array.shape))

    def done(self) -> None:
        self.told.append(("done",))


class Raising(Remembering):
    """Fails as long as it is `down`."""

    told: ClassVar[list[tuple]] = []
    down: ClassVar[bool] = True

    def scalars(self, step, values) -> None:
        if self.down:
            raise ConnectionError("the network is down")
        super().scalars(step, values)


class Slow(Remembering):
    """Takes a second for every call."""

    told: ClassVar[list[tuple]] = []

    def scalars(self, step, values) -> None:
        time.sleep(1.0)
        super().scalars(step, values)


class Hanging(Remembering):
    """Never comes back."""

    told: ClassVar[list[tuple]] = []

    def scalars(self, step, values) -> None:
        time.sleep(1e6)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    for kind in (Remembering, Raising, Slow, Hanging):
        kind.told.clear()
    monkeypatch.setattr(Raising, "down", True)
    monkeypatch.setattr(tracking, "PATIENCE", 2.0)
    monkeypatch.setattr(tracking, "AGAIN_SECONDS", 0.05)


def _name(kind: type) -> str:
    return f"{HERE}:{kind.__name__}"


def _config(*kinds: type):
    return parse({"data": {"path": "/secret/place/set.npz"}, "steps": 9, "track": [_name(k) for k in kinds]})


def _stepped(step: int, loss: float = 0.5) -> Stepped:
    metrics = Metrics(step=step, progress=0.0, elapsed=0.0, samples=step, loss=loss, lr=1e-3, grad_norm=2.0)
    return Stepped(metrics, 0.1, {"images_per_s": 3.0}, None)


def _began(step: int = 0) -> Began:
    return Began(Path(), None, None, None, None, None, step, 0.0, None)


def _wait(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_tracker_is_told_every_number_and_sheet_in_order(tmp_path):
    level = LevelLoss((0.1, 1.0), np.array([[0.25, 0.75]]))
    with Tracking(tmp_path, _config(Remembering), print) as watcher:
        watcher(_began())
        for step in (1, 2, 3):
            watcher(_stepped(step, loss=step / 4))
        watcher(Looked(3, level, Image.new("L", (6, 4))))
    rows = [t[1:] for t in Remembering.told if t[0] == "scalars"]
    assert [r[0] for r in rows] == [1, 2, 3, 3]
    assert [r[1]["train/loss"] for r in rows[:3]] == [0.25, 0.5, 0.75]
    assert rows[0][1] == {"train/loss": 0.25, "train/lr": 1e-3, "train/grad_norm": 2.0, "machine/images_per_s": 3.0}
    assert rows[3][1] == {"held_out/mean": 0.5, "held_out/sigma 0.1": 0.25, "held_out/sigma 1": 0.75}
    assert ("image", 3, "samples", (4, 6, 3)) in Remembering.told
    assert Remembering.told[0] == ("made", 0) and Remembering.told[-1] == ("done",)


def test_fast_steps_become_rows_of_their_mean(tmp_path):
    with Tracking(tmp_path, _config(Remembering), print) as watcher:
        watcher(_began())
        for step in range(1, 2001):
            watcher(_stepped(step, loss=float(step)))
        time.sleep(tracking.ROW_SECONDS)
        watcher(_stepped(2001, loss=2001.0))
    rows = [t[1:] for t in Remembering.told if t[0] == "scalars"]
    assert [r[0] for r in rows[:100]] == list(range(1, 101))
    assert len(rows) < 110
    steps = [100, *(r[0] for r in rows[100:])]
    for (step, row), before in zip(rows[100:], steps, strict=False):
        assert row["train/loss"] == pytest.approx((before + 1 + step) / 2)


def test_one_that_fails_is_told_again_what_it_missed_and_one_line_says_so(tmp_path):
    said = []
    with Tracking(tmp_path, _config(Raising), said.append) as watcher:
        watcher(_began())
        for step in range(1, 6):
            watcher(_stepped(step))
        _wait(lambda: sum(t[0] == "made" for t in Raising.told) >= 3)
        Raising.down = False
        watcher(_stepped(6))
    assert [t[1] for t in Raising.told if t[0] == "scalars"] == [1, 2, 3, 4, 5, 6]
    assert len(said) == 1 and "the network is down" in said[0]


def test_one_that_goes_on_failing_is_given_up_quietly(tmp_path):
    said = []
    started = time.perf_counter()
    with Tracking(tmp_path, _config(Raising, Remembering), said.append) as watcher:
        watcher(_began())
        watcher(_stepped(1))
        _wait(lambda: Raising.told)
    assert time.perf_counter() - started < tracking.PATIENCE + 1
    assert len(said) == 1 and "Raising" in said[0]
    assert [t[1] for t in Remembering.told if t[0] == "scalars"] == [1]


def test_what_waits_is_bounded_and_still_covers_the_whole_course(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "ROW_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "BUFFER_BYTES", 64 << 10)
    with Tracking(tmp_path, _config(Raising), lambda text: None) as watcher:
        watcher(_began())
        for step in range(1, 3001):
            watcher(_stepped(step))
        (line,) = watcher._lines
        waiting = [thing.step for thing in line._waiting]
        assert 16 <= len(waiting) <= 64
        assert waiting == sorted(waiting) and waiting[0] == 1 and waiting[-1] > 2800
        assert max(np.diff(waiting)) <= 128


@pytest.mark.parametrize("kind", [Slow, Hanging])
def test_a_tracker_that_takes_seconds_costs_a_step_nothing(tmp_path, monkeypatch, kind):
    """The watcher's own share of steps of 2 ms, with a tracker that takes a second for each call, or for ever."""
    monkeypatch.setattr(tracking, "PATIENCE", 0.3)
    spent, said = 0.0, []
    with Tracking(tmp_path, _config(kind), said.append) as watcher:
        watcher(_began())
        for step in range(1, 301):
            time.sleep(0.002)
            started = time.perf_counter()
            watcher(_stepped(step))
            spent += time.perf_counter() - started
        leaving = time.perf_counter()
    assert time.perf_counter() - leaving < 2
    assert spent < 0.01 * 300 * 0.02  # a hundredth of steps of 20 ms; measured: some 10 microseconds
    assert len(said) == 1 and "slow" in said[0]


def test_a_run_under_a_failing_and_a_hanging_tracker_ends_with_the_same_bits(in_tmp, monkeypatch):
    monkeypatch.setattr(tracking, "PATIENCE", 0.3)
    np.save("set.npy", digits_like(120)[0])
    names = [_name(Raising), _name(Hanging)]
    tracked, plain = (
        train("set.npy", steps=4, track=track, settings=QUICK, console=Console("quiet")) for track in (names, None)
    )
    assert np.array_equal(tracked.samples, plain.samples)
    log = (tracked.path / "run.log").read_text()
    assert log.count("tracker") == 2
    assert read_yaml(tracked.path / "config.yaml")["track"] == names


def test_tensorboard_reads_back_what_was_told_and_a_resumed_run_replaces_its_later_steps(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = parse({"data": {"path": "/secret/place/set.npz"}, "steps": 9, "track": ["tensorboard"]})
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    level = LevelLoss((1.0,), np.array([[0.5]]))
    for begin, steps, factor in ((0, (1, 2, 3, 4), 1.0), (2, (3, 4, 5), 10.0)):
        with Tracking(tmp_path, config, pytest.fail) as watcher:
            watcher(_began(begin))
            for step in steps:
                watcher(_stepped(step, loss=step * factor))
            watcher(Looked(steps[-1], level, picture))
        time.sleep(1.1)  # its files are told apart by seconds
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 30), (4, 40), (5, 50)]
    (image,) = events.Images("samples")
    import io

    with Image.open(io.BytesIO(image.encoded_image_string)) as back:
        assert np.array_equal(np.asarray(back), np.asarray(picture))
    files = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard").iterdir())
    assert b"set.npz" in files and b"secret" not in files


def test_wandb_keeps_offline_what_was_told(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = parse({"data": {"path": "/secret/place/set.npz"}, "steps": 9, "track": ["wandb"]})
    monkeypatch.setattr(tracking, "PATIENCE", 60.0)
    with Tracking(tmp_path, config, pytest.fail) as watcher:
        watcher(_began())
        for step in (1, 2, 3):
            watcher(_stepped(step, loss=step / 4))
        watcher(Looked(3, LevelLoss((1.0,), np.array([[0.5]])), Image.new("RGB", (8, 8))))
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    rows, facts = _wandb_rows(kept)
    assert [(r["step"], r["train/loss"]) for r in rows if "train/loss" in r] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert [r["held_out/mean"] for r in rows if "held_out/mean" in r] == [0.5]
    assert len(list(kept.parent.glob("files/media/images/samples*.png"))) == 1
    assert facts["steps"] == 9
    assert b"secret" not in kept.read_bytes()


def _wandb_rows(path: Path) -> tuple[list[dict], dict]:
    """History and config of an offline run: W&B's own records, in the log format of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    body, at, record, rows, facts = path.read_bytes(), 7, b"", [], {}
    while at + 7 <= len(body):
        if 32768 - at % 32768 < 7:  # the rest of a block is empty
            at += 32768 - at % 32768
        size, kind = struct.unpack("<HB", body[at + 4 : at + 7])
        record += body[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found, record = wandb_internal_pb2.Record.FromString(record), b""
            if found.WhichOneof("record_type") == "history":
                rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in found.history.item})
            elif found.WhichOneof("record_type") == "run":
                facts |= {u.key: json.loads(u.value_json) for u in found.run.config.update}
    return rows, facts


def test_unknown_trackers_and_missing_extras_are_usage_errors(monkeypatch):
    with pytest.raises(UsageError, match="did you mean `tensorboard`"):
        kinds(["tensorbord"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"langevin\[track\]"):
        kinds(["wandb"])

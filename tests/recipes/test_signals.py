"""Signals, locks, closed terminals: what a process does when the world around it wants something else."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import langevin
import langevin.data.cache
from langevin.cli.main import run as command
from langevin.data.dataset import Dataset
from langevin.errors import DataError, UsageError
from langevin.recipes.console import Console
from langevin.recipes.lock import lock
from langevin.recipes.signals import StoppedError, stop_requests
from tests.models import digits_like, small_model

QUICK = ["--set", "network={name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}"]
QUICK += ["--set", "batch=12", "--set", "precision=float32"]
SLOW_SAVE = """
import signal, sys, time
import langevin.recipes.session as session
from langevin.cli import main
from langevin.recipes import signals
from langevin.training import checkpoint

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test may run where it is ignored
signals.TOGETHER = 0.5
session.CHECKPOINT_SECONDS, inner, saved = 0.0, checkpoint.restore, []
write = session.checkpoint.store.write_tensors

def slowly(path, tensors):
    if len(saved) >= 4:
        print("writing", flush=True)
        time.sleep(60)
    saved.append(write(path, tensors))

session.checkpoint.store.write_tensors = slowly
main(sys.argv[1:])
"""


@pytest.fixture
def pictures(in_tmp) -> str:
    images, labels = digits_like(130)
    np.savez("set.npz", images=images, labels=labels)
    return "set.npz"


def _start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(("kind", "code"), [("SIGTERM", -signal.SIGTERM), ("SIGINT", 130)])
def test_the_second_signal_ends_at_once_and_the_last_checkpoint_is_kept(pictures, kind, code):
    """The first falls into a save that takes a minute."""
    process = _start(SLOW_SAVE, "train", pictures, "--steps", "50", "--out", "run", *QUICK)
    for line in process.stdout:
        if line.strip() == "writing":
            break
    process.send_signal(getattr(signal, kind))
    for line in process.stdout:
        if "asked to stop" in line:
            break
    assert process.poll() is None
    if kind == "SIGTERM":
        process.send_signal(signal.SIGTERM)  # as of a scheduler and a launcher, is the first again
        time.sleep(1.0)
        assert process.poll() is None
    began = time.monotonic()
    process.send_signal(getattr(signal, kind))
    process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert process.returncode == code
    assert langevin.load("runs/run-1").sample(1, steps=2).shape == (1, 8, 8)
    assert command(["train", "--resume", "runs/run-1", "--steps", "6"]) == 0


def test_sigterm_twice_at_once_is_one_and_a_later_one_ends(monkeypatch):
    got: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    now = [100.0]
    monkeypatch.setattr("langevin.recipes.signals.time", SimpleNamespace(monotonic=lambda: now[0]))
    try:
        with stop_requests() as stop:
            stop.heard(signal.SIGTERM)  # another process of the run was asked first
            for now[0] in (100.0, 101.0, 104.9):
                os.kill(os.getpid(), signal.SIGTERM)
            assert stop.exit_code == 75
            assert got == []
            now[0] = 105.1
            os.kill(os.getpid(), signal.SIGTERM)
            assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, former)


def test_whatever_kind_comes_second_acts_as_it_did_before(monkeypatch):
    got: list[int] = []
    former = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            assert not stop
            os.kill(os.getpid(), signal.SIGINT)  # ignored before, as in a job in the background: ignored now
            assert not stop
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop and stop.exit_code == 75
            os.kill(os.getpid(), signal.SIGUSR1)
            assert got == [signal.SIGUSR1]
            with pytest.raises(StoppedError, match="what"):
                stop.heed("what")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, former)
        signal.signal(signal.SIGINT, ignored)


@pytest.fixture
def run(in_tmp) -> Path:
    model = small_model()
    model.sampling = {"steps": 4, "guidance": 1.0}
    model.save(in_tmp / "runs/small-1/model")
    return Path("runs/small-1")


def _signalled(inner, count: int):
    """A function that sends a signal when it is called for the `count`th time."""
    calls: list[int] = []

    def call(*given, **settings):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(*given, **settings)

    return call


def test_sampling_stops_before_the_next_evaluation_and_writes_nothing(run, monkeypatch, capsys):
    forward = type(small_model().denoiser).forward
    seen: list[int] = []

    def counted(self, *given, **settings):
        seen.append(1)
        if len(seen) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *given, **settings)

    monkeypatch.setattr(type(small_model().denoiser), "forward", counted)
    assert command(["sample", str(run), "-n", "8", "--steps", "1000", "--out", "a.png"]) == 75
    assert len(seen) == 7
    assert "nothing is written" in capsys.readouterr().err
    assert not Path("a.png").exists()


def test_tuning_keeps_what_was_tuned_by_then(run, monkeypatch, capsys):
    import langevin.recipes.tune as recipe

    monkeypatch.setattr(recipe, "tune_steps", _signalled(recipe.tune_steps, 2))
    assert command(["tune", str(run), "--steps", "3", "--steps", "4", "--seeds", "16"]) == 75
    assert f"langevin tune {run} --steps 4 --seeds 16" in capsys.readouterr().err
    assert set(langevin.load(run).sampling.get("tuned", {})) <= {"3"}


def test_a_classifier_that_is_stopped_leaves_nothing(pictures, monkeypatch, capsys):
    assert command(["train", pictures, "--steps", "2", "--out", "run", *QUICK]) == 0
    import langevin.recipes.classifier as recipe

    monkeypatch.setattr(recipe, "surprise", _signalled(recipe.surprise, 3))
    assert command(["classifier", "runs/run-1", "--steps", "50"]) == 75
    assert not Path("runs/run-1/classifier").exists()
    assert command(["classifier", "runs/run-1", "--steps", "3"]) == 0


def test_reading_pictures_stops_at_the_next_of_them_and_leaves_no_half_cache(in_tmp, monkeypatch, capsys):
    """Of 700 files the first 256 are looked at together; the rest is never opened."""
    Path("many").mkdir()
    for k, picture in enumerate(digits_like(700)[0]):
        Image.fromarray(picture).save(f"many/{k:03d}.png")
    import langevin.data.gather as gather

    decoded: list[int] = []
    inner = gather.laid_out

    def laid_out(*given):
        decoded.append(1)
        if len(decoded) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(*given)

    monkeypatch.setattr(gather, "laid_out", laid_out)
    monkeypatch.setenv("LANGEVIN_CACHE", str(in_tmp / "cache"))
    assert command(["train", "many", "--steps", "2", *QUICK]) == 75
    assert len(decoded) <= 256
    assert "stopped while the data were read" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert list(in_tmp.glob("cache/**/items.bin")) == [] and list(in_tmp.glob("cache/**/.making-*")) == []


def test_who_has_the_lock_is_named_and_who_died_with_it_too(in_tmp):
    run = in_tmp / "run"
    run.mkdir()
    said: list[str] = []
    with (
        lock(run, said.append),
        pytest.raises(UsageError, match=f"process {os.getpid()} on {platform.node()}"),
        lock(run),
    ):
        pass
    assert said == [] and (run / "lock.json").read_text() == ""
    (run / "lock.json").write_text('{"pid": 999999999, "host": "elsewhere"}')
    with lock(run, said.append):
        pass
    assert "process 999999999 on elsewhere had this run" in said[0]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_told_and_the_file_decides(in_tmp, monkeypatch, code):
    import langevin.recipes.lock as recipe

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(recipe.fcntl, "flock", refuse)
    run, said = in_tmp / "run", []
    run.mkdir()
    with lock(run, said.append):
        assert "no locks on this system or disk" in said[0]
        with pytest.raises(UsageError, match=r"is working on this run.*delete"), lock(run):  # itself, alive
            pass
    with lock(run):
        pass
    (run / "lock.json").write_text(json.dumps({"pid": 999999999, "host": platform.node()}))
    with lock(run, said.append):  # dead, and here: certain
        assert "had this run and ended" in said[-1]
    (run / "lock.json").write_text(json.dumps({"pid": 999999999, "host": "elsewhere"}))
    with pytest.raises(UsageError, match=r"elsewhere.*delete"), lock(run):  # nobody here can know
        pass


class _Gone:
    """A terminal that was closed."""

    def __init__(self, code: int) -> None:
        self.code = code

    def write(self, text: str) -> int:
        raise OSError(self.code, os.strerror(self.code))

    flush = isatty = close = lambda self: False


def test_a_terminal_that_goes_away_and_a_log_that_fills_the_disk_end_nothing(in_tmp):
    for mode in ("lines", "json"):
        with Console(mode, stream=_Gone(errno.EIO), interval=0) as console:
            console.keep_log(in_tmp / "run.log")
            console.say("one")
            console.progress("training", 0.5)
            console.say("two")
    assert (in_tmp / "run.log").read_text() == "one\ntwo\none\ntwo\n"
    told: list[str] = []
    console = Console("lines")
    console._print = told.append
    console.keep_log(in_tmp / "no/such/folder/run.log")
    console._log = _Gone(errno.ENOSPC)
    console.say("four")
    console.say("five")
    assert [line.split("  ")[0] for line in told] == ["note", "note", "four", "five"]


def test_a_reader_that_leaves_and_a_closed_terminal_do_not_end_a_run(pictures):
    """Its output goes to a pipe that nobody reads, and the terminal hangs up."""
    process = _start("from langevin.cli import main; import sys; main(sys.argv[1:])", "train", pictures,
                     "--steps", "60", "--out", "run", *QUICK)  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    while not list(Path("runs").glob("run-1/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert Path("runs/run-1/figures.json").is_file()
    assert "next" in Path("runs/run-1/run.log").read_text()


def test_decoded_items_that_are_cut_short_are_an_error_and_not_a_crash(in_tmp):
    """To read on from the map would end the process with SIGBUS; deleted, the file is there as long as it is open."""
    images = np.random.default_rng(0).integers(0, 255, (600, 16, 16, 3)).astype(np.uint8)
    np.save("set.npy", images)
    dataset = langevin.data.open("set.npy", cache=in_tmp / "cache")
    assert isinstance(dataset, Dataset)
    (items,) = in_tmp.glob("cache/pictures/*/items.bin")
    every = np.arange(600)
    assert np.array_equal(dataset.take(every), images)
    items.rename(items.with_name("other"))
    items.with_name("other").unlink()
    assert np.array_equal(dataset.take(every), images)
    again = langevin.data.open("set.npy", cache=in_tmp / "cache")
    os.truncate(items, 5000)
    with pytest.raises(DataError, match="cut short") as caught:
        again.take(every[::-1])
    assert caught.value.exit_code == 3

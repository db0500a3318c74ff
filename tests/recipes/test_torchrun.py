"""Runs of several processes as a user starts them, killed, stopped, gone on with; over gloo on this machine."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import langevin
from tests.training import world as many

OFTEN = ("--set", "checkpoints.every_steps=5")


def _quick(*arguments: str) -> list[str]:
    return ["--set", f"network={many.TINY}", "--set", "precision=float32", "--set", "batch=10", *arguments]


def _step(run: Path) -> int:
    """Of the newest checkpoint."""
    found = [int(p.name[5:]) for p in (run / "checkpoints").glob("step-*") if p.name[5:].isdigit()]
    return max(found, default=0)


def _wait(run: Path, step: int, process) -> None:
    deadline = time.monotonic() + 120
    while _step(run) < step:
        assert process.poll() is None and time.monotonic() < deadline, many.finish(process, 5)
        time.sleep(0.01)


def _sums(run: Path) -> dict[str, str]:
    """sha256 of the weights and the state at the end, and of the rows without their clocks."""
    last = run / "checkpoints" / f"step-{_step(run):09d}"
    found = {
        n: hashlib.sha256((last / n).read_bytes()).hexdigest() for n in ("model.safetensors", "training.safetensors")
    }
    numbers = json.loads((last / "state.json").read_text())["numbers"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    plain = [{k: v for k, v in row.items() if k != "clock"} for row in rows]
    found["rows"] = hashlib.sha256(json.dumps(plain).encode()).hexdigest()
    found["numbers"] = json.dumps({k: v for k, v in numbers.items() if k != "clock"}, sort_keys=True)
    return found


def test_a_rank_that_is_killed_takes_all_along_and_a_restart_goes_on(pictures, in_tmp):
    """One of two is killed: the other says which and ends; torchrun starts both again, in the same run, from a checkpoint."""
    arguments = ["train", str(pictures), "--steps", "60", "--out", "r", *_quick(*OFTEN)]
    process = many.start(2, *arguments, restarts=1)
    _wait(Path("runs/r-1"), 10, process)
    killed = many.ranks(process)[1]
    os.kill(killed, signal.SIGKILL)
    said = many.finish(process)
    assert process.returncode == 0, said
    assert f"rank 1 on {os.uname().nodename} (process {killed}): was killed or crashed" in said
    assert "langevin train --resume runs/r-1" in said
    assert "going on from step" in said
    assert [p.name for p in Path("runs").iterdir()] == ["r-1"]
    steps = [json.loads(line) for line in Path("runs/r-1/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if "loss" in row] == list(range(1, 61))
    assert langevin.load("runs/r-1").sample(2).shape == (2, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_killed_and_stopped_it_ends_as_if_never_disturbed(pictures, in_tmp, parallel):
    """200 steps are 50, kill -9 of all, 70, SIGTERM to one rank, and the rest."""
    more = _quick("--parallel", parallel, "--set", "checkpoints.every_steps=10", "--set", "micro_batch=5")
    arguments = ["train", str(pictures), "--steps", "200", *more]
    whole = many.start(2, *arguments, "--out", "whole")
    assert many.finish(whole, 170) and whole.returncode == 0
    run = Path("runs/parts-1")
    first = many.start(2, *arguments, "--out", "parts")
    _wait(run, 50, first)
    for one in (first.pid, *many.ranks(first)):
        os.kill(one, signal.SIGKILL)
    first.communicate()
    assert not (run / "model").exists()
    second = many.start(2, "train", "--resume", str(run))
    _wait(run, 120, second)
    os.kill(many.ranks(second)[1], signal.SIGTERM)  # rank 0 is not told but by rank 1
    said = many.finish(second)
    assert "and saved" in said
    assert 120 <= _step(run) < 200
    third = many.start(2, "train", "--resume", str(run))
    said = many.finish(third)
    assert third.returncode == 0, said
    assert _sums(run) == _sums(Path("runs/whole-1"))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_one_process_and_two_end_at_the_same_model(pictures, in_tmp, parallel):
    """The same samples to a grey level, the same held-out loss; one resumes what two have begun."""
    many.train(1, pictures, "one", "--steps", "40")
    many.train(2, pictures, "two", "--steps", "40", "--parallel", parallel)
    one, two = (langevin.load(f"runs/{name}-1").sample(8, steps=6).astype(float) for name in ("one", "two"))
    assert np.abs(one - two).max() <= 2
    losses = [json.loads(Path(f"runs/{n}-1/figures.json").read_text())["held_out_loss"] for n in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    longer = many.start(1, "train", "--resume", "runs/two-1", "--steps", "60")
    said = many.finish(longer)
    assert longer.returncode == 0, said
    assert "going on from step 40" in said


def _spoilt(lines: str) -> dict[str, str]:
    """A module `spoilt` that is langevin with these lines before it starts; gives the environment that finds it."""
    Path("spoilt.py").write_text(
        "import os, sys\nimport langevin.training.loop as loop\nfrom langevin.cli import main\n"
        f"{lines}\nmain(sys.argv[1:])\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(Path.cwd())])}


@pytest.mark.slow
def test_an_error_of_one_rank_ends_all_with_its_words(pictures, in_tmp):
    """Rank 1 alone fails at step 7: the others end within seconds, with its rank, host and reason."""
    env = _spoilt(
        "from langevin.errors import DataError\n"
        "find = loop.gradient\n"
        "def failing(denoiser, batch, config, state, *more, **rest):\n"
        "    if os.environ['RANK'] == '1' and state.step == 7:\n"
        "        raise DataError('the disk of this host is gone')\n"
        "    return find(denoiser, batch, config, state, *more, **rest)\n"
        "loop.gradient = failing"
    )
    began = time.monotonic()
    process = many.start(
        3, "train", str(pictures), "--steps", "5000", "--out", "r", *_quick(), module="spoilt", env=env
    )
    said = many.finish(process, 90)
    assert process.returncode != 0
    assert time.monotonic() - began < 80
    assert f"rank 1 on {os.uname().nodename}" in said
    assert "the disk of this host is gone" in said
    assert "rank 0 on" in said and "ends with it" in said


@pytest.mark.slow
@pytest.mark.parametrize(("step", "parallel"), [(0, "ddp"), (7, "ddp"), (7, "fsdp")])
def test_memory_that_one_rank_has_not_ends_all_with_what_to_do(pictures, in_tmp, step, parallel):
    """From the first step all halve together, and save; later the others would wait for it, and it says what to change."""
    env = _spoilt(
        "find = loop.gradient\n"
        "def failing(denoiser, batch, config, state, *more, **rest):\n"
        f"    if os.environ['RANK'] == '1' and state.step >= {step}:\n"
        "        raise MemoryError\n"
        "    return find(denoiser, batch, config, state, *more, **rest)\n"
        "loop.gradient = failing"
    )
    more = _quick("--parallel", parallel, "--set", "checkpoints.every_steps=5")
    process = many.start(2, "train", str(pictures), "--steps", "50", "--out", "r", *more, module="spoilt", env=env)
    said = many.finish(process, 90)
    assert process.returncode != 0
    assert "exitcode  : 5" in said, said
    if step:
        assert f"rank 1 on {os.uname().nodename}" in said
        assert "not enough memory for 5 samples at once   step 8   help: --set micro_batch=2" in said
        assert _step(Path("runs/r-1")) == 5
    else:
        assert "memory of a step, at least:" in said
        assert "error: not enough memory for 1 samples at once" in said
        assert Path("runs/r-1/checkpoints/step-000000000").exists()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_sent_back_all_processes_begin_again_at_half_the_rate(pictures, in_tmp, parallel):
    """To the first weights, after the seventh step: it ends at the model of a run at half the rate from the start."""
    env = _spoilt(
        "taken, finite = [], loop.finite\nloop.finite = lambda *two: not (taken.append(1) or 4 <= len(taken) < 8)"
    )
    more = _quick("--steps", "20", "--parallel", parallel)
    process = many.start(2, "train", str(pictures), "--out", "back", *more, module="spoilt", env=env)
    said = many.finish(process)
    assert process.returncode == 0, said
    assert "back to step 0, the first weights, at 0.5 of the learning rate" in said
    many.train(2, pictures, "half", "--steps", "20", "--parallel", parallel, "--set", "optimizer.lr=1e-3")
    back, half = (langevin.load(f"runs/{name}-1", weights="raw").sample(4, steps=4) for name in ("back", "half"))
    assert np.array_equal(back, half)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_rate_far_too_high_ends_all_with_exit_code_4(pictures, in_tmp, parallel):
    more = _quick("--parallel", parallel, "--set", "optimizer.lr=1e30")
    process = many.start(2, "train", str(pictures), "--steps", "300", "--out", "lost", *more)
    said = many.finish(process, 90)
    assert process.returncode != 0
    assert said.count("of the learning rate") == 2, said
    assert "error: 4 steps in a row gave numbers that are not finite: rank 0 on" in said
    assert f"rank 1 on {os.uname().nodename}" in said
    assert "exitcode  : 4" in said
    assert not Path("runs/lost-1/model").exists()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_all_processes_begin_with_the_weights_of_another_run(pictures, in_tmp, parallel):
    """At a rate of nothing the model stays what it began with."""
    many.train(1, pictures, "first", "--steps", "20")
    still = ("--steps", "3", "--init", "runs/first-1", "--set", "optimizer.lr=1e-30", "--parallel", parallel)
    said = many.train(2, pictures, "second", *still)
    assert said.count("init       ") == 1
    first, second = (langevin.load(f"runs/{n}-1", weights=w) for n, w in (("first", "ema"), ("second", "raw")))
    assert np.array_equal(first.sample(4, steps=4), second.sample(4, steps=4))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_budget_of_minutes_ends_on_time_in_all_processes(pictures, in_tmp, parallel):
    many.train(2, pictures, "short", "--minutes", "0.2", "--parallel", parallel)
    rows = [json.loads(line) for line in Path("runs/short-1/metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    spent = np.array([row["clock"]["elapsed"] for row in rows])
    assert spent[-2] < 12 and 12 - spent[-1] < 1
    assert spent[-1] - spent[-2] < 5
    assert rows[-1]["lr"] < 0.05 * max(row["lr"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("to", [("launcher", "ranks"), ("ranks", "launcher"), ("launcher",)])
def test_a_scheduler_that_asks_launcher_and_processes_gets_a_saved_run(pictures, in_tmp, to):
    """Each process is asked twice then; nothing had been saved before."""
    process = many.start(2, "train", str(pictures), "--steps", "5000", "--out", "r", *_quick())
    deadline, rows = time.monotonic() + 60, Path("runs/r-1/metrics.jsonl")
    while not rows.exists() or len(rows.read_text().splitlines()) < 20:
        assert process.poll() is None and time.monotonic() < deadline, many.finish(process, 5)
        time.sleep(0.01)
    ranks = many.ranks(process)
    for one in [pid for whom in to for pid in ({"launcher": [process.pid], "ranks": ranks}[whom])]:
        os.kill(one, signal.SIGTERM)
    said = many.finish(process)
    assert "and saved" in said
    assert _step(Path("runs/r-1")) >= 20
    last = many.start(2, "train", "--resume", "runs/r-1", "--steps", str(_step(Path("runs/r-1")) + 5))
    assert "going on from step" in many.finish(last)
    assert last.returncode == 0


@pytest.mark.slow
def test_mistakes_are_told_once(pictures, in_tmp):
    process = many.start(3, "train", str(pictures), "--steps", "5", *_quick("--set", "batch=2"))
    said = many.finish(process)
    assert said.count("a batch of 2 for 3 processes") == 1, said
    process = many.start(2, "train", str(pictures), "--steps", "5", "--set", "optimizer.name=nonsense")
    said = many.finish(process)
    assert said.count("error: ") == 1, said

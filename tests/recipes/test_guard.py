"""A run whose numbers go wrong: sent back and finished, or ended with nothing broken left behind."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import langevin
from langevin import store
from langevin.diffusion.loss import denoising_loss
from langevin.errors import DataError, DivergedError, MemoryShortError, UsageError
from langevin.networks.base import Network
from langevin.recipes import session
from langevin.recipes.console import Console
from langevin.recipes.train import train
from langevin.training.guard import Guard
from tests.models import digits_like

NETWORK = "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}"
QUICK = {"network": NETWORK, "batch": "12"}


@pytest.fixture
def pictures(in_tmp) -> str:
    np.save("set.npy", digits_like(130)[0])
    return "set.npy"


def _train(path, settings=None, **more):
    return train(path, console=Console("quiet"), settings={**QUICK, **(settings or {})}, **{"steps": 30, **more})


def _rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _spoil(monkeypatch, when) -> list[int]:
    """Losses of the steps that `when(step)` names are nan; gives the steps taken, each as often as it was."""
    steps: list[int] = []

    def compute(denoiser, x0, t, noise, weight, *, cond=None):
        loss = denoising_loss(denoiser, x0, t, noise, weight, cond=cond)
        if not torch.is_grad_enabled():
            return loss * math.nan if steps[-1] in bad else loss
        steps.append(noise.keys[0][1] // 12)
        if when(steps[-1], len(steps)):
            bad.add(steps[-1])
        else:
            bad.discard(steps[-1])
        return loss * (math.nan if steps[-1] in bad else 1.0)

    bad: set[int] = set()
    monkeypatch.setattr("langevin.training.loop.denoising_loss", compute)
    return steps


def _all_finite(run: Path) -> bool:
    files = list(run.glob("checkpoints/*/*.safetensors")) + list(run.glob("model/*.safetensors"))
    return bool(files) and all(v.isfinite().all() for f in files for v in store.read_tensors(f).values())


def test_sent_back_once_a_run_goes_on_at_half_the_rate_and_ends_well(pictures, monkeypatch):
    """Four steps in a row from the tenth on, the first time they are come by; checkpoints at every step."""
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)
    taken = _spoil(monkeypatch, lambda step, calls: 10 <= step < 14 and calls <= 14)
    run = _train(pictures)
    assert taken == [*range(14), *range(10, 30)]
    rows = _rows(run.path)
    steps = [r["step"] for r in rows if "loss" in r]
    assert steps == list(range(1, 31))
    (returned,) = [r for r in rows if "returned_from" in r]
    assert (returned["step"], returned["returned_from"], returned["rate"], returned["returns"]) == (10, 14, 0.5, 1)
    log = (run.path / "run.log").read_text()
    assert "back to step 10 at 0.5 of the learning rate" in log
    assert log.count("not finite, skipped") == 3
    assert _all_finite(run.path)
    lr = {r["step"]: r["lr"] for r in rows if "loss" in r}
    monkeypatch.setattr("langevin.training.loop.denoising_loss", denoising_loss)
    plain = _rows(_train(pictures, out="plain").path)
    expected = {r["step"]: r["lr"] for r in plain if "loss" in r}
    assert lr[10] == expected[10]
    assert lr[11] == pytest.approx(expected[11] / 2)
    assert lr[30] == pytest.approx(expected[30] / 2)


def test_without_a_checkpoint_it_goes_back_to_the_first_weights(pictures, monkeypatch):
    """A run at half the rate from the start gives the same model as one that was sent back to the start."""
    with monkeypatch.context() as patched:
        taken = _spoil(patched, lambda step, calls: 3 <= step < 7 and calls <= 7)
        run = _train(pictures)
    assert taken == [*range(7), *range(30)]
    half = _train(pictures, {"optimizer.lr": "1e-3"}, out="half")
    a, b = (langevin.load(r.path, weights="raw").sample(3) for r in (run, half))
    assert np.array_equal(a, b)


def test_the_gradient_of_the_step_that_sent_a_run_back_is_forgotten(pictures, monkeypatch):
    """A finite one, of a step that was judged lost: what follows is a run at half the rate from the start."""
    heed, lost = Guard.heed, []

    def judge(self, loss, silent, step, rate):
        if step == 5 and not lost:
            lost.append(step)
            raise DivergedError("lost")
        heed(self, loss, silent, step, rate)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "heed", judge)
        run = _train(pictures)
    half = _train(pictures, {"optimizer.lr": "1e-3"}, out="half")
    a, b = (langevin.load(r.path, weights="raw").sample(3) for r in (run, half))
    assert lost and np.array_equal(a, b)


def test_what_is_always_wrong_ends_after_two_returns_and_leaves_nothing_broken(pictures, monkeypatch):
    taken = _spoil(monkeypatch, lambda step, calls: step >= 5)
    with pytest.raises(DivergedError, match=r"12 of 12 samples.*sent back 2 times") as caught:
        _train(pictures, out="lost")
    assert caught.value.exit_code == 4
    assert taken == [*range(9)] * 3
    run = Path("runs/lost-1")
    assert not (run / "model").exists()
    assert _all_finite(run)
    state = json.loads(next(run.glob("checkpoints/*/state.json")).read_text())["numbers"]
    assert (state["rate"], state["guard"]["returns"], state["step"]) == (0.25, 2, 0)
    taken.clear()
    with pytest.raises(DivergedError, match="sent back 2 times"):  # who resumes it has no more returns
        train(resume=run, console=Console("quiet"))
    assert taken == [*range(9)]


def test_a_run_too_short_for_four_bad_steps_in_a_row_is_lost_all_the_same(pictures):
    """Its weights are finite, what they give is not: the pictures and figures of such a run must not be made."""
    with pytest.raises(DivergedError, match="held-out loss is not finite"):
        _train(pictures, {"optimizer.lr": "1e30"}, steps=3)
    assert not list(Path("runs").glob("*/model"))


def test_killed_after_it_was_sent_back_it_does_not_forget(pictures, monkeypatch):
    """Stopped the hard way right after the return: what is on the disk has the rate and the count."""
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)

    class KilledError(Exception):
        pass

    with monkeypatch.context() as patched:
        _spoil(patched, lambda step, calls: 10 <= step < 14 and calls <= 14)
        log = session.rescue.log

        def killed(*arguments):
            log(*arguments)
            raise KilledError

        patched.setattr(session.rescue, "log", killed)
        with pytest.raises(KilledError):
            _train(pictures, out="killed")
    on = train(resume="runs/killed-1", console=Console("quiet"))
    with monkeypatch.context() as patched:
        _spoil(patched, lambda step, calls: 10 <= step < 14 and calls <= 14)
        whole = _train(pictures, out="whole")
    a, b = (langevin.load(r.path, weights="raw").sample(3) for r in (on, whole))
    assert np.array_equal(a, b)
    drop = {"clock", "elapsed"}
    left, right = ([{k: v for k, v in r.items() if k not in drop} for r in _rows(x.path)] for x in (on, whole))
    assert left == right


def test_a_weight_set_to_nan_between_two_steps_reaches_no_file(pictures, monkeypatch):
    """By hand, right before a checkpoint is written: it is refused, and the run goes back to the one before."""
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)
    told = session.rescue.tell
    once: list[int] = []

    def meddle(say, metrics):
        told(say, metrics)
        if metrics.step == 12 and not once:
            once.append(1)
            with torch.no_grad():
                next(kept["network"].parameters()).view(-1)[0] = math.nan

    kept = {}
    start = session.TrainState.start

    def remember(network, *arguments):
        kept["network"] = network
        return start(network, *arguments)

    monkeypatch.setattr(session.TrainState, "start", staticmethod(remember))
    monkeypatch.setattr(session.rescue, "tell", meddle)
    run = _train(pictures)
    assert once
    log = (run.path / "run.log").read_text()
    assert "weights that are not finite are not written: raw." in log
    assert "back to step 11 at 0.5" in log
    assert _all_finite(run.path)


def test_a_loss_that_is_finite_and_lost_is_seen_and_what_was_saved_meanwhile_is_no_place_to_go_back_to(
    pictures, monkeypatch
):
    """A hundred times the loss from step 40 on: 32 steps later the run goes back to before it, whatever the clock says."""
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)

    def compute(denoiser, x0, t, noise, weight, *, cond=None):
        loss = denoising_loss(denoiser, x0, t, noise, weight, cond=cond)
        return loss * (100 if noise.keys[0][1] // 12 >= 40 else 1)

    monkeypatch.setattr("langevin.training.loop.denoising_loss", compute)
    with pytest.raises(DivergedError, match=r"times that of the untrained network.*sent back 2 times") as caught:
        _train(pictures, steps=120, out="lost")
    assert caught.value.exit_code == 4
    run = Path("runs/lost-1")
    assert not (run / "model").exists()
    assert _all_finite(run)
    back = [r for r in _rows(run) if "returned_from" in r]
    assert [r["rate"] for r in back] == [0.5, 0.25]
    assert all(40 <= r["step"] < 48 and 72 <= r["returned_from"] < 84 for r in back)


def test_memory_that_is_short_later_saves_and_says_what_to_change(pictures, monkeypatch):
    monkeypatch.setattr("langevin.training.loop.FIRST_STEPS", 5)

    def short(denoiser, x0, t, noise, weight, *, cond=None):
        if noise.keys[0][1] // 12 >= 9:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return denoising_loss(denoiser, x0, t, noise, weight, cond=cond)

    with monkeypatch.context() as patched:
        patched.setattr("langevin.training.loop.denoising_loss", short)
        with pytest.raises(MemoryShortError) as caught:
            _train(pictures, out="short")
    assert caught.value.exit_code == 5
    run = Path("runs/short-1")
    assert [p.name for p in (run / "checkpoints").glob("step-*")] == ["step-000000009"]
    table = (run / "run.log").read_text()
    sizes = [float(line.split()[-2].replace(",", "")) for line in table.splitlines() if line.endswith(" MB")]
    assert "micro_batch=6" in table
    assert sizes[0] >= sizes[1] >= sizes[2] > 0
    on, whole = train(resume=run, console=Console("quiet")), _train(pictures)
    assert np.array_equal(*(langevin.load(r.path, weights="raw").sample(2) for r in (on, whole)))


def test_constant_pictures_are_refused_before_anything_is_made(in_tmp):
    np.save("flat.npy", np.full((50, 8, 8), 9, np.uint8))
    with pytest.raises(DataError, match="50 items are the same flat picture, 9 everywhere"):
        _train("flat.npy")
    assert not Path("runs").exists()


class Unpools(Network):
    """A network with an operation that has no deterministic kernel anywhere."""

    def __init__(self, *, channels: int = 1, conditions: dict | None = None) -> None:
        super().__init__()
        self.config = {"channels": channels, "conditions": dict(conditions or {})}
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, c_noise, cond=None):
        pooled, places = nn.functional.max_pool2d(self.layer(x), 2, return_indices=True)
        return nn.functional.max_unpool2d(pooled, places, 2)


def test_a_kernel_that_is_not_deterministic_is_named(pictures):
    network = {"network": "{name: 'tests.recipes.test_guard:Unpools'}", "deterministic": "true"}
    with pytest.raises(UsageError, match="`max_unpooling2d_forward_out` has no deterministic kernel"):
        _train(pictures, network, steps=2)
    assert not torch.are_deterministic_algorithms_enabled()
    a, b = (_train(pictures, {"deterministic": "true"}, steps=5, out=name) for name in "ab")
    assert np.array_equal(a.samples, b.samples)


@pytest.mark.slow
def test_digits_at_a_hundred_times_the_rate_end_with_exit_code_4_and_at_the_default_are_told_nothing(in_tmp):
    for rate, code in (("2e-1", 4), ("2e-3", 0)):
        command = ["train", "digits", "--steps", "300", "--out", f"r{code}", "--set", f"optimizer.lr={rate}"]
        done = subprocess.run(
            [sys.executable, "-m", "langevin", *command], capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert ("back to" in done.stdout) == (code == 4)
        assert Path(f"runs/r{code}-1/model").exists() == (code == 0)

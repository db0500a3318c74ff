"""Private runs: nothing is said of training items, a lost run ends as lost, and more steps are not offered for nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from langevin.errors import DataError, UsageError
from langevin.recipes.console import Console
from langevin.recipes.train import train
from langevin.training import private
from langevin.training.secret import Secret
from tests.models import digits_like

NETWORK = "{name: unet, channels: 1, dims: 2, patch: 1, widths: [16, 16], attention: []}"
QUICK = {"network": NETWORK, "batch": "12", "private.draws": "2"}


def _rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _train(path, steps, **settings):
    return train(path, steps=steps, settings={**QUICK, **settings}, console=Console("quiet"))


def test_a_rate_a_hundred_times_too_high_ends_with_exit_code_4_and_publishes_nothing(in_tmp):
    """The held-out loss of the raw weights is ten times that of a network that says nothing, and never comes back."""
    pytest.importorskip("opacus")
    np.save("set.npy", digits_like(130)[0])
    settings = {**QUICK, "private.epsilon": "8", "optimizer.lr": "0.2"}
    command = ["train", "set.npy", "--steps", "70", *(f"--set={k}={v}" for k, v in settings.items())]
    done = subprocess.run([sys.executable, "-m", "langevin", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "times that of the untrained network" in done.stderr
    assert "lower optimizer.lr" in done.stderr
    assert "back to step" not in done.stdout  # epsilon is spent: there is no step to take again
    (run,) = Path("runs").iterdir()
    assert not list(run.glob("model*")) and not (run / "figures.json").exists()
    assert max(row["loss"] for row in _rows(run) if "loss" in row) > 2


def test_what_a_run_says_and_stops_for_is_no_function_of_training_items(in_tmp, monkeypatch):
    """Where their gradients are kept from the weights, two sets that share nothing but held-out items give equal rows."""
    monkeypatch.setattr(Secret, "new", staticmethod(lambda: Secret((7, 9))))
    clipped = private.clipped_sum
    none = lambda found, clip: ({k: 0 * v for k, v in clipped(found, clip)[0].items()}, None)  # noqa: E731
    monkeypatch.setattr(private, "clipped_sum", none)
    pictures, split = digits_like(260)[0], np.array(["train"] * 110 + ["test"] * 20)
    fixed = {"parametrization": "{name: karras, sigma_data: 0.5}", "weight": "{name: karras, sigma_data: 0.5}"}
    found = []
    for name, train_items in (("a", pictures[:110]), ("b", 255 - pictures[110:220])):
        np.savez(f"{name}.npz", images=np.concatenate([train_items, pictures[240:]]), split=split)
        run = _train(f"{name}.npz", 70, **fixed, **{"private.noise": "0.5"}).path
        found.append([{k: v for k, v in row.items() if k not in ("clock", "on")} for row in _rows(run)])
        log = (run / "run.log").read_text()
        assert "training 0" not in log and "more steps cost more epsilon" in log
        assert (run / "progress.png").stat().st_size > 10_000
    assert found[0] == found[1]
    looks = [row for row in found[0] if "held_out" in row]
    assert [row["step"] for row in looks] == [64, 70] or len(looks) == 1
    assert all(len(row["held_out_items"]) > 1 and not row["training_items"] for row in looks)


def test_a_finished_run_is_not_offered_steps_that_its_epsilon_does_not_have(in_tmp):
    pytest.importorskip("opacus")
    np.save("set.npy", digits_like(130)[0])
    run = _train("set.npy", 6, **{"private.epsilon": "8"}).path
    with pytest.raises(UsageError, match="allows no more than 6 steps"):
        train(resume=run, steps=20, console=Console("quiet"))
    with pytest.raises(UsageError, match="this run is finished") as caught:
        train(resume=run, console=Console("quiet"))
    assert "longer" not in caught.value.help
    assert (run / "figures.json").is_file()


def test_a_private_run_without_held_out_items_is_refused(in_tmp):
    np.savez("set.npz", images=digits_like(3)[0])
    with pytest.raises(DataError, match="none is held out"):
        _train("set.npz", 6, **{"private.noise": "1"})
    assert not Path("runs").exists()

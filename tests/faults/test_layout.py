"""What does not fit is named and counted, and nothing of the run has been changed."""

import json
import shutil

import pytest
import torch

from langevin import store
from langevin.errors import RefusedError
from langevin.training import checkpoint
from tests.faults import tiny
from tests.faults.test_histories import Sitting


@pytest.mark.parametrize("what", ["optimizer.exp_avg_sq.", "ema.0.1.", "optimizer.step."])
@pytest.mark.parametrize("how", ["missing", "wrong", "more"])
def test_tensors_that_are_missing_wrong_or_too_many(tmp_path, what, how):
    run = Sitting(tiny.pictures(tmp_path))
    for _ in range(2):
        next(run.steps)
    path = checkpoint.save(tmp_path, run.model, run.state)
    tensors = store.read_tensors(path / "training.safetensors")
    chosen = [k for k in tensors if k.startswith(what)]
    for name in chosen:
        if how == "missing":
            del tensors[name]
        elif how == "wrong":
            tensors[name] = torch.zeros(7, 3)
        else:
            tensors[f"{name}x"] = torch.zeros(2)

    def write(folder) -> None:
        for part in checkpoint.PARTS:
            shutil.copy(path / part, folder / part)
        store.write_tensors(folder / "training.safetensors", tensors)

    store.write_folder(path, write, replace=True)
    other = Sitting(tmp_path / "set.npy")
    before = other.bits()
    with pytest.raises(RefusedError, match=rf"{what}.*; .* and {len(chosen) - 10} more") as caught:
        checkpoint.restore(path, other.model, other.state)
    assert caught.value.what.count(what) == 10
    assert all(torch.equal(v, before[k]) for k, v in other.bits().items()) and other.state.step == 0


def test_numbers_that_are_none(tmp_path):
    run = Sitting(tiny.pictures(tmp_path))
    next(run.steps)
    path = checkpoint.save(tmp_path, run.model, run.state)
    facts = store.read_json(path / "state.json")
    facts["numbers"]["step"], facts["numbers"]["rate"] = "one", None
    (path / "state.json").write_text(json.dumps(facts))
    other = Sitting(tmp_path / "set.npy")
    with pytest.raises(RefusedError, match="step is 'one'; rate is None"):
        checkpoint.restore(path, other.model, other.state)
    assert other.state.step == 0

"""Too little memory: known by what allocators say, met by smaller parts with the same result, and foretold."""

import numpy as np
import pytest
import torch

from langevin.diffusion.loss import denoising_loss
from langevin.errors import MemoryShortError
from langevin.networks import UNet
from langevin.recipes.shortage import predicted
from langevin.training.memory import is_shortage, shrinking
from tests.training.runs import Run


def short_above(count):
    """A loss that finds no memory for more than so many samples at once."""

    def compute(denoiser, x0, t, noise, weight, *, cond=None):
        if len(x0) > count:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")
        return denoising_loss(denoiser, x0, t, noise, weight, cond=cond)

    return compute


def test_a_batch_that_does_not_fit_is_done_in_parts_with_the_same_result(pictures, tmp_path):
    parts, whole = (Run(pictures, tmp_path / name, precision="float32") for name in ("parts", "whole"))
    told = parts.take(6, short_above(3))[0].troubles
    expected = whole.take(6)
    assert [one.facts["micro_batch"] for one in told] == [6, 3]
    assert parts.state.guard.micro_batch == 3
    assert [m.loss for m in parts.rows] == pytest.approx([m.loss for m in expected], rel=1e-4)
    for k, v in whole.state.network.state_dict().items():
        torch.testing.assert_close(parts.state.network.state_dict()[k], v, rtol=1e-2, atol=1e-4)
    parts.save()
    again = Run(pictures, tmp_path / "parts", precision="float32").reopen()
    assert again.take(7, short_above(3))[0].troubles == ()  # it knows


def test_where_three_halvings_do_not_help_nothing_was_done(pictures, tmp_path):
    run = Run(pictures, tmp_path)
    run.take(2)
    before = run.copied()
    with pytest.raises(MemoryShortError, match="2 samples at once") as caught:  # 12, 6, 3, 2
        run.take(3, short_above(1))
    assert caught.value.exit_code == 5
    assert run.state.step == 2
    assert run.changed(before) == []
    assert all(p.grad is None for p in run.state.network.parameters())
    run.save()


def test_later_nothing_is_halved(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("langevin.training.loop.FIRST_STEPS", 3)
    run = Run(pictures, tmp_path)
    compute = short_above(6)
    late = lambda *a, **k: compute(*a, **k) if run.state.step >= 3 else denoising_loss(*a, **k)  # noqa: E731
    with pytest.raises(MemoryShortError, match="12 samples at once"):
        run.take(10, late)
    assert run.state.step == 3


def test_what_counts_as_a_shortage():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_shortage(caught.value)
    with pytest.raises(MemoryError) as full:
        np.empty(1 << 60, np.uint8)
    assert is_shortage(full.value)
    assert is_shortage(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_shortage(RuntimeError("could not create a primitive"))
    assert not is_shortage(RuntimeError("could not create a primitive descriptor for a convolution"))
    assert not is_shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        shrinking(lambda n: torch.ones(2, 3) @ torch.ones(2, 3), 8, "x", print)


def test_looks_shrink_until_they_fit_or_are_left_out():
    def work(room):
        def inner(batch):
            if batch > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return batch

        return inner

    said = []
    assert shrinking(work(5), 64, "preview", said.append) == 4
    assert [line.split()[2] for line in said] == ["32", "16", "8", "4"]
    assert shrinking(work(0), 2, "preview", said.append) is None
    assert "left out" in said[-1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_memory_that_is_predicted_is_what_a_step_keeps(precision, size):
    """Against the tensors that a real forward pass keeps for its backward pass, and the parameters."""
    spec = {"name": "unet", "channels": 3, "dims": 2, "widths": [16, 32], "attention": [1]}
    network = UNet(**{k: v for k, v in spec.items() if k != "name"})
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        held.append(tensor)
        return tensor

    held = []
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        network(torch.randn(size, 3, 16, 16), torch.randn(size), {})
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    activations = sum(n for k, n in kept.items() if k not in own)
    parameters = sum(p.numel() for p in network.parameters())
    found = predicted(spec, (3, 16, 16), size, precision, each=5.0)
    assert found == pytest.approx(activations + 20 * parameters, rel=0.02)


def test_a_foreign_network_that_cannot_run_without_storage_is_not_guessed_at():
    assert predicted({"name": "unet", "channels": 3}, (1, 16, 16), 2, "float32", 5.0) is None

"""The loop: same run, same bits; stopped anywhere and resumed, same bits; and it learns what can be known exactly."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from langevin.config import OptimizerConfig
from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.weights import Weight
from langevin.errors import DivergedError, RefusedError
from langevin.evaluation.noise_levels import held_out_loss
from langevin.registry import build
from langevin.rng import SampleNoise
from langevin.training import checkpoint
from langevin.training.feed import _Ahead
from langevin.training.gradient import gradient
from langevin.training.optimizer import learning_rate
from tests.training.runs import TINY, Run, in_sittings, same


@pytest.mark.parametrize(
    "changes", [{}, {"micro_batch": 5, "times": {"name": "loss_aware", "bins": 4, "warm": 2}}, {"uncertainty": True}]
)
def test_stopped_anywhere_and_resumed_gives_the_same_bits(pictures, tmp_path, changes):
    whole = Run(pictures, tmp_path / "whole", **changes).go(40)
    same(whole, Run(pictures, tmp_path / "again", **changes).go(40))
    stops = (7, 23, 40)  # mid-epoch: an epoch is about ten steps
    same(whole, in_sittings(stops, pictures, tmp_path / "parts", **changes))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(pictures, tmp_path):
    run = Run(pictures, tmp_path / "r").go(5)
    first = run.save()
    run.go(9)
    second = run.save()
    body = bytearray((second / "training.safetensors").read_bytes())
    body[-1] ^= 1
    (second / "training.safetensors").write_bytes(body)
    said = []
    assert checkpoint.newest(run.folder, said.append) == first
    assert "training.safetensors" in said[0]
    assert not second.exists()
    assert len(list((run.folder / "checkpoints").glob("damaged-*"))) == 1
    run.go(12)
    run.save()
    run.go(14)
    run.save()
    assert [f.name[-2:] for f in checkpoint.folders(run.folder)] == ["14", "12"]


def test_a_checkpoint_of_another_model_is_refused(pictures, tmp_path):
    saved = Run(pictures, tmp_path / "r").go(2).save()
    other = Run(pictures, tmp_path / "o", network={**TINY, "widths": [8, 16]})
    with pytest.raises(RefusedError, match="do not fit"):
        checkpoint.restore(saved, other.model, other.state)


def test_micro_batches_add_up_to_the_gradient_of_the_batch(pictures, tmp_path):
    grads = []
    for size in (None, 5):
        run = Run(pictures, tmp_path / str(size), micro_batch=size, precision="float32")
        with torch.no_grad():  # the first output is exactly zero: wake it up
            for p in run.state.network.parameters():
                p.add_(0.05 * torch.sin(torch.arange(p.numel(), dtype=torch.float32)).view_as(p))
        weight = build(dict(run.config.weight), Weight)
        gradient(run.model.denoiser, run.feed.at(0), run.config, run.state, weight, denoising_loss)
        grads.append(torch.cat([p.grad.flatten() for p in run.state.network.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_the_learning_rate_warms_up_and_reaches_zero():
    settings = OptimizerConfig()
    assert learning_rate(settings.warmup / 2, settings) == pytest.approx(settings.lr / 2, rel=1e-3)
    assert learning_rate(0.5, settings) == pytest.approx(settings.lr / 2)
    assert learning_rate(1.0, settings) == pytest.approx(0, abs=1e-12)


def test_an_untrained_network_has_held_out_loss_one_and_training_lowers_it(pictures, tmp_path):
    """With Karras's weight and measured sigma_data, loss 1 is what a network that says nothing gets."""
    run = Run(pictures, tmp_path / "r", steps=150)
    weight = build(dict(run.config.weight), Weight)
    x0, cond = run.feed.items(run.dataset.train_indices)
    before = held_out_loss(run.model.denoiser, x0, cond, run.state.law, weight, levels=16)
    assert before.mean == pytest.approx(1.0, abs=0.05)
    assert before.ratios == tuple(sorted(before.ratios))
    run.go(150)
    x0, cond = run.feed.items(run.dataset.held_out_indices)
    after = held_out_loss(run.model.denoiser.eval(), x0, cond, run.state.law, weight, levels=16)
    assert after.mean < 0.6


def test_numbers_that_are_not_finite_are_skipped_and_end_the_run_if_they_go_on(pictures, tmp_path):
    run = Run(pictures, tmp_path / "r").go(3)
    kept = run.copied()
    with torch.no_grad():
        run.state.network.state_dict()[next(iter(run.state.network.state_dict()))].fill_(math.nan)
    with pytest.raises(DivergedError) as caught:
        run.go(40)
    assert caught.value.exit_code == 4
    for name, value in run.state.tensors().items():
        if name.startswith(("ema", "optimizer")):
            assert torch.equal(value, kept[name])


def test_batches_that_are_read_ahead_are_the_same(pictures, tmp_path):
    """In whatever order they are asked for; and so is their noise, from its first number on."""
    feed = Run(pictures, tmp_path / "r").feed
    ahead = _Ahead(**{f.name: getattr(feed, f.name) for f in dataclasses.fields(feed)})
    for step in (0, 1, 2, 9, 10, 3):
        ours, theirs = ahead.at(step), feed.at(step)
        assert ours.made is not None
        assert np.array_equal(ours.rows, theirs.rows)
        assert torch.equal(ours.x0, theirs.x0)
        assert torch.equal(ours.u, theirs.u)
        assert torch.equal(ours.cond["label"], theirs.cond["label"])
        for part in (slice(None), slice(3, 7)):
            first, second = ours.noise(part), theirs.noise(part)
            assert torch.equal(first(ours.x0[part]), second(ours.x0[part]))
            assert torch.equal(first(ours.x0[part]), second(ours.x0[part]))  # further draws


def test_noise_and_dropped_labels_do_not_depend_on_the_batch_they_come_in(pictures, tmp_path):
    run = Run(pictures, tmp_path / "r")
    keys = run.feed.at(3).keys
    assert len(set(keys)) == 12
    x = torch.empty(12, 1, 8, 8)
    halves = torch.cat([SampleNoise(keys[:5])(x[:5]), SampleNoise(keys[5:])(x[5:])])
    assert torch.equal(run.feed.at(3).noise()(x), halves)
    labels = torch.stack([run.feed.at(step).cond["label"] for step in range(400)])
    dropped = (labels == len(run.dataset.classes)).double().mean().item()
    assert dropped == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / labels.numel()))


def test_processes_share_a_batch_between_them(pictures, tmp_path):
    """The parts of three ranks, one after the other, are the batch of one: items, labels, times and noise."""
    feed = Run(pictures, tmp_path / "r").feed
    whole, parts = feed.at(5), [dataclasses.replace(feed, rank=rank, world=3).at(5) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert np.array_equal(whole.rows, np.concatenate([part.rows for part in parts]))
    assert whole.keys == [key for part in parts for key in part.keys]
    for of in (lambda b: b.x0, lambda b: b.cond["label"], lambda b: b.u):
        assert torch.equal(of(whole), torch.cat([of(part) for part in parts]))

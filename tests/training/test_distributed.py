"""Many processes take the steps of one; checkpoints of any number of them load on any other; who dies takes all along."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from langevin.config import parse
from langevin.errors import UsageError
from langevin.networks.unet import UNet
from langevin.recipes import crew, launch
from langevin.training.distributed import ALONE, World, blocks
from langevin.training.economy import economise
from langevin.training.heartbeat import Heartbeat, Member
from langevin.training.scale import LossScale
from tests.training import world as many
from tests.training.ranks import Run


def _ranks(count: int, tmp_path: Path, *arguments: object) -> dict:
    """What `ranks.py` finds on so many processes."""
    out = tmp_path / "found.json"
    said = many.finish(many.start(count, str(out), *map(str, arguments), module="tests.training.ranks"))
    assert out.exists(), said
    found = json.loads(out.read_text())
    out.unlink()
    return found


def _compare(found: dict, steps: int) -> None:
    alone = np.array(found["alone"])
    assert alone.shape == (steps, 2)
    for name in ("ddp", "fsdp"):
        assert np.abs(np.array(found[name])[:, 0] - alone[:, 0]).max() < 1e-4
        np.testing.assert_allclose(np.array(found[name])[:, 1], alone[:, 1], rtol=1e-2)
    assert alone[-1, 0] < 0.95 * alone[0, 0]


def test_three_processes_take_the_steps_of_one(pictures, tmp_path):
    """A batch of 10 over 3 processes, in micro-batches; copies and shards; a law and an uncertainty that learn."""
    found = _ranks(3, tmp_path, "curves", pictures, 12)
    _compare(found, 12)
    assert max(found["apart"]) < 1e-5


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_for_long(pictures, tmp_path):
    _compare(_ranks(2, tmp_path, "curves", pictures, 100), 100)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_in_half_precision(pictures, tmp_path):
    """And agree on the scale of the loss: as many steps are lost to one that is too large as halvings it needs."""
    found = _ranks(2, tmp_path, "half", pictures)
    for name in ("ddp", "fsdp"):
        for precision, most in (("float16", 2e-2), ("bfloat16", 5e-2)):
            rows, alone = (np.array(found[f"{precision} {of}"]) for of in (name, "alone"))
            np.testing.assert_allclose(rows[:, 0], alone[:, 0], rtol=most)
        rows, factor, skipped = found[f"scale {name}"]
        lost = int((~np.isfinite(rows).all(1)).sum())
        assert lost > 3 and factor == 2.0 ** (32 - lost) and skipped == 0
        assert found["scale alone"][1] / 4 <= factor <= found["scale alone"][1]  # each has half the batch to divide by


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        ((2, "ddp"), (2, "fsdp")),
        pytest.param((2, "fsdp"), (1, "ddp"), marks=pytest.mark.slow),
        pytest.param((2, "fsdp"), (3, "fsdp"), marks=pytest.mark.slow),
        pytest.param((2, "ddp"), (3, "ddp"), marks=pytest.mark.slow),
        pytest.param((1, "ddp"), (3, "fsdp"), marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_loads_on_any_number_of_processes(pictures, tmp_path, saved, loaded):
    before = _ranks(saved[0], tmp_path, "stored", pictures, tmp_path / "run", "save", saved[1])
    after = _ranks(loaded[0], tmp_path, "stored", pictures, tmp_path / "run", "load", loaded[1])
    assert before["sums"] == after["sums"]
    np.testing.assert_allclose(after["rows"], before["rows"], rtol=1e-4)


def test_the_process_in_which_numbers_went_wrong_is_named_with_item_level_and_layer(pictures, tmp_path):
    """A sample that only the second of two processes has; what is found is what one process finds."""
    found = _ranks(2, tmp_path, "spoilt", pictures)
    alone = found["alone"]["troubles"]
    assert [step for step, _, _ in alone] == [2, 3, 4]
    assert [facts["layer"] for _, _, facts in alone] == [None, None, "bottom.0"]
    assert all(len(facts["items"]) == len(facts["sigma"]) == 1 for _, _, facts in alone)
    for name in ("ddp", "fsdp"):
        np.testing.assert_allclose(found[name]["rows"], found["alone"]["rows"], rtol=1e-3)
        assert len(found[name]["rows"]) == 3
        for (step, what, facts), (_, words, expected) in zip(found[name]["troubles"], alone, strict=True):
            if name == "fsdp" and step == 3:  # whose shards know nothing of single samples
                assert facts["parameter"] and f"gradient of `{facts['parameter']}` not finite" in what
                continue
            assert facts.pop("ranks") == [1]
            assert facts == expected
            assert what == words.replace("skipped: ", f"skipped: rank 1 on {os.uname().nodename}: ")
            assert f"items {facts['items'][0]}" in what and f"{facts['sigma'][0]:g}" in what


def test_where_one_process_has_no_room_all_take_smaller_parts_and_the_same_steps(pictures, tmp_path):
    """Bit for bit those of a run that was asked for parts of that size."""
    found = _ranks(2, tmp_path, "short", pictures)
    assert found["found"]["rows"] == found["asked"]["rows"]
    ((step, what, facts),) = found["found"]["troubles"]
    assert (step, facts) == (1, {"micro_batch": 3})
    assert what.startswith("5 samples at once do not fit into memory: 3 at a time")
    assert found["asked"]["troubles"] == []
    assert found["none"]["step"] == 0
    assert "not enough memory for 1 samples at once" in found["none"]["rows"][0]


def test_parts_that_not_all_processes_have_as_many_of_are_refused_where_they_would_wait_for_each_other():
    """13 items are 6 and 7 on two processes: one and two parts of 6, one of 7; copies need not agree."""
    config, two = parse({"data": {"path": "x"}, "batch": 13}), World(0, 2)
    crew.refuse_unfit(config, two.under("fsdp"))
    crew.refuse_unfit(config, two.under("ddp"), 6)
    crew.refuse_unfit(config, two.under("fsdp"), 7)
    with pytest.raises(UsageError, match="13 in micro-batches of 6 is cut differently on 2 processes"):
        crew.refuse_unfit(config, two.under("fsdp"), 6)


def test_every_thing_is_somebodys_part():
    for size in range(1, 7):
        for count in range(20):
            parts = [World(rank, size).part(count) for rank in range(size)]
            assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
            assert max(p.stop - p.start for p in parts) == -(-count // size)


def test_the_scale_of_the_loss_follows_torch():
    """Against torch.amp.GradScaler, over gradients of which some are not finite, until it would fall below 1."""
    own, weight = LossScale.of("float16"), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    other = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("langevin.training.scale.GROWTH", 3)
        for bad in [0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1] + [1] * 12:
            other.scale((weight * torch.tensor([1.0, 2.0, np.inf if bad else 3.0])).sum()).backward()
            slope = [weight.grad.clone()]
            other.step(optimizer)
            other.update()
            own.down(slope)
            assert bad or torch.allclose(slope[0], torch.tensor([1.0, 2.0, 3.0]))
            assert own.heed(not bad, "float16") == bool(bad)
            optimizer.zero_grad()
            assert own.factor == other.get_scale()
    own.factor = 1.0
    assert not own.heed(False, "float16")  # then it is not the scale's fault
    assert not LossScale.of("float32").heed(False, "float32")


def test_float16_learns_what_float32_does_and_a_scale_too_large_costs_no_more_than_its_steps(pictures):
    plain, half, large = (Run(ALONE, pictures, precision=p) for p in ("float32", "float16", "float16"))
    large.state.scale.factor, first = 2.0**40, {k: v.clone() for k, v in large.state.network.state_dict().items()}
    expected = np.array(plain.go(12))
    np.testing.assert_allclose(np.array(half.go(12))[:, 0], expected[:, 0], rtol=2e-2)
    assert half.state.scale == LossScale(65536.0, 12)
    skipped = 0
    while not np.isfinite(large.go(1)[0][1]):
        skipped += 1
        assert all(torch.equal(v, first[k]) for k, v in large.state.network.state_dict().items())
    assert skipped > 3  # more in a row than would end a run whose numbers are wrong
    assert large.state.scale == LossScale(2.0 ** (40 - skipped), 1)
    assert large.state.skipped == large.state.guard.in_a_row == 0
    assert large.state.numbers()["scale"] == {"factor": 2.0 ** (40 - skipped), "good": 1}


def _network(config, **more) -> UNet:
    torch.manual_seed(0)
    network = UNet(channels=2, dims=2, patch=1, widths=[8, 8], attention=[1], **more)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    economise(network, config, ALONE)
    return network


def _slopes(network) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    network.train()
    network(torch.randn(3, 2, 9, 8), torch.linspace(-1, 1, 3)).square().mean().backward()
    return {k: p.grad for k, p in network.named_parameters()}


@pytest.mark.parametrize(
    ("setting", "exact"),
    [
        ({"checkpoint_activations": True}, True),
        ({"channels_last": True}, False),
        ({"compile": False, "channels_last": False}, True),
        pytest.param({"compile": True}, False, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("more", [{}, {"dropout": 0.3}])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler warns of itself
def test_what_is_cheaper_has_the_same_gradient_and_the_same_names(setting, exact, more):
    if more and setting.get("compile"):
        pytest.skip("compiled code draws its own numbers")
    plain = _slopes(_network(parse({"data": {"path": "x"}}), **more))
    network = _network(parse({"data": {"path": "x"}, **setting}), **more)
    own = _slopes(network)
    assert own.keys() == plain.keys()
    assert list(network.state_dict()) == list(_network(parse({"data": {"path": "x"}}), **more).state_dict())
    for name, slope in plain.items():
        torch.testing.assert_close(own[name], slope, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-6)


def test_activations_that_are_computed_again_are_not_kept():
    """What autograd keeps between forward and backward shrinks to the blocks' inputs."""

    def kept(setting) -> int:
        sizes: dict[int, int] = {}

        def pack(t):
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        network = _network(parse({"data": {"path": "x"}, **setting}))
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            network(torch.randn(3, 2, 16, 16), torch.linspace(-1, 1, 3))
        return sum(size for at, size in sizes.items() if at not in weights)

    assert kept({"checkpoint_activations": True}) < 0.5 * kept({})


def test_blocks_are_what_a_network_is_made_of():
    network = _network(parse({"data": {"path": "x"}}))
    assert {type(b).__name__ for b in blocks(network)} == {"Residual", "Attention"}
    assert len(blocks(network)) == len({id(b) for b in blocks(network)}) == 9  # 2 down, 5 below, 2 up


class _Left:
    """Stands in for the end of a process."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []

    def __call__(self, text: str, code: int) -> None:
        self.said.append((text, code))

    def within(self, seconds: float) -> tuple[str, int]:
        deadline = time.monotonic() + seconds
        while not self.said and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.said[0]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("langevin.training.heartbeat.BEAT", 0.02)
    monkeypatch.setattr("langevin.training.heartbeat.SILENCE", 0.5)
    monkeypatch.setattr("langevin.training.heartbeat.GRACE", 0.1)


def test_who_fails_by_an_error_says_so_to_all(quick):
    store, left = dist.HashStore(), [_Left() for _ in range(3)]
    beats = [Heartbeat(store, rank, 3, left[rank]) for rank in range(3)]
    beats[0].advice = "langevin train --resume runs/x"
    assert beats[2].fail("the disk is full", 6)
    text, code = left[0].within(5)
    assert f"rank 2 on {os.uname().nodename} (process {os.getpid()}): the disk is full" in text
    assert "--resume runs/x" in text
    assert code == 6
    assert left[1].within(5)[1] == 6
    assert not beats[1].fail("the disk is full", 6)  # the same again is not said twice
    assert left[2].said == []


def test_who_is_silent_is_found_and_who_left_is_not_missed(quick):
    store, left = dist.HashStore(), [_Left() for _ in range(3)]
    beats = [Heartbeat(store, rank, 3, left[rank]) for rank in range(3)]
    beats[1].stop()
    time.sleep(1.0)
    assert not any(one.said for one in left)
    beats[2]._over.set()  # says nothing from here on
    assert "rank 2" in left[0].within(5)[0]
    assert "has not answered" in left[0].said[0][0]


def test_when_rank_0_has_left_the_others_do(quick):
    store, left = dist.HashStore(), [_Left(), _Left()]
    beats = [Heartbeat(store, rank, 2, left[rank]) for rank in range(2)]
    beats[0].stop(75)
    assert left[1].within(5) == ("", 75)


def test_a_process_that_was_killed_is_known_to_be_gone():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me = Member.me(0)
    member = Member(1, me.host, child.pid, me.space)
    assert not member.is_gone(me)
    child.kill()
    child.communicate()
    assert member.is_gone(me)
    assert not Member(1, "elsewhere", child.pid, me.space).is_gone(me)


def test_a_restarted_attempt_finds_its_own_run(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not launch.is_restart()
    for k, made_by in ((1, "other"), (2, "this"), (3, "this"), (4, "other")):
        run = tmp_path / f"name-{k}"
        run.mkdir()
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", made_by)
        launch.remember(run)
        (run / "config.yaml").write_text("")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert launch.is_restart()
    assert launch.interrupted(tmp_path, "name") == tmp_path / "name-3"
    assert launch.interrupted(tmp_path, "nam") is None
    (tmp_path / "name-3/figures.json").write_text("")
    assert launch.interrupted(tmp_path, "name") == tmp_path / "name-2"


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"steps": 1999}, None),
        ({"steps": 2000}, "graphs"),
        ({"minutes": 0.9}, None),
        ({"minutes": 1}, "graphs"),
        ({"minutes": 9, "compile": False}, None),
        ({"steps": 5, "compile": True}, "graphs"),
    ],
)
def test_a_gpu_replays_graphs_where_a_run_is_long_enough(settings, mode, monkeypatch):
    """The device is named and not used: nothing is compiled before the network is called."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    config = parse({"data": {"path": "x"}, **settings})
    for size in (1, 2):
        asked = []
        network = UNet(channels=1, dims=2, patch=1, widths=[8], attention=[])
        monkeypatch.setattr(network, "compile", lambda mode=None, asked=asked: asked.append(mode))
        economise(network, config, World(size=size, device=torch.device("cuda", 0)))
        assert asked == ([] if mode is None else ["reduce-overhead" if size == 1 else None])
        assert torch.backends.cudnn.benchmark

"""Numbers that go wrong: what is skipped leaves no trace, where it began is named, what diverges is seen, what learns is not."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from langevin.diffusion import GaussianDiffusion, NetworkDenoiser
from langevin.diffusion import parametrization as outputs
from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.schedules import VE, Flow, VPLinear
from langevin.diffusion.weights import VLB, Karras, V
from langevin.errors import DivergedError, MemoryShortError
from langevin.networks import UNet
from langevin.recipes import plan
from langevin.recipes.shortage import predicted
from langevin.rng import SampleNoise
from langevin.training import TrainState, checkpoint, fit
from langevin.training.guard import ASTRAY, SHAKEN, AstrayError, Guard, silence
from langevin.training.memory import is_shortage, shrinking
from tests.models import digits_like
from tests.training.test_fit import Run

LEARNS = {"times": {"name": "loss_aware", "bins": 4, "warm": 2}, "uncertainty": True, "precision": "float32"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "set.npz"
    images, labels = digits_like(130)
    np.savez(path, images=images, labels=labels)
    return path


def spoilt(when, value=math.nan):
    """A loss that is `value` for the samples that `when(step, place in the batch)` names; batches are of 12."""

    def compute(denoiser, x0, t, noise, weight, *, cond=None):
        loss = denoising_loss(denoiser, x0, t, noise, weight, cond=cond)
        bad = torch.tensor([bool(when(key[1] // 12, key[1] % 12)) for key in noise.keys])
        return loss * torch.where(bad, value, 1.0)

    return compute


def go(run, until, compute=None, stop_at=()):
    """Take steps; gives their Metrics."""
    out = []
    for metrics in fit(run.model.denoiser, run.feed, run.config, run.state, compute=compute):
        out.append(metrics)
        run.rows.append(dataclasses.replace(metrics, elapsed=0.0))
        if metrics.step >= until:
            break
    return out


def bits(run):
    return {k: v.clone() for k, v in run.bits().items()}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_skipped_step_leaves_no_trace(pictures, tmp_path, value):
    """Weights, optimizer, averages, the moments of the time law and the learned uncertainty: bit for bit."""
    run = Run(pictures, tmp_path, **LEARNS)
    go(run, 12)
    before = bits(run)
    (metrics,) = go(run, 13, spoilt(lambda step, j: step == 12 and j == 5, value))
    after = bits(run)
    assert [k for k in before if not torch.equal(before[k], after[k])] == []
    assert any(k.startswith("law.") for k in before)
    assert any(k.startswith("uncertainty.") for k in before)
    assert run.state.step == 13
    assert run.state.skipped == 1
    assert not math.isfinite(metrics.loss)
    go(run, 14)
    assert [k for k in before if k.startswith("raw.") and torch.equal(before[k], run.bits()[k])] == []


def test_what_went_wrong_is_named(pictures, tmp_path):
    """The noise level, the item and the step are those of the samples that were spoilt, the layer is the one that was."""
    run = Run(pictures, tmp_path)
    go(run, 3)
    bad = {2, 7}
    batch = run.feed.at(3)
    (metrics,) = go(run, 4, spoilt(lambda step, j: step == 3 and j in bad))
    (trouble,) = metrics.troubles
    t, _ = run.state.law(batch.u, run.model.denoiser.process.schedule)
    schedule = run.model.denoiser.process.schedule
    assert trouble.kind == "skipped"
    assert trouble.facts["items"] == [run.dataset.names[batch.rows[j]] for j in sorted(bad)]
    expected = (schedule.sigma(t) / schedule.alpha(t))[sorted(bad)]
    assert trouble.facts["sigma"] == pytest.approx(expected.tolist(), rel=1e-3)
    assert trouble.facts["layer"] is None  # the network itself is sound
    assert "2 of 12 samples" in trouble.what

    layers = dict(run.state.network.named_modules())
    name = "bottom.0"
    handle = layers[name].register_forward_hook(lambda module, given, out: out * math.nan)
    (metrics,) = go(run, 5)
    handle.remove()
    assert metrics.troubles[0].facts["layer"] == name
    assert len(metrics.troubles[0].facts["items"]) == 12


def test_a_gradient_alone_that_is_not_finite_is_named(pictures, tmp_path):
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            bad = grad.clone()
            if len(bad) == 12 or poisoned(bad):
                bad[7 if len(bad) == 12 else 0] = math.nan
            return bad

    seen = []

    def poisoned(grad):  # run again one by one, the eighth is the one
        seen.append(1)
        return len(seen) == 8

    run = Run(pictures, tmp_path)
    go(run, 3)
    batch = run.feed.at(3)
    handle = run.state.network.norm.register_forward_hook(lambda module, given, out: Poison.apply(out))
    (metrics,) = go(run, 4)
    handle.remove()
    facts = metrics.troubles[0].facts
    assert facts["layer"] is None
    assert facts["items"] == [run.dataset.names[batch.rows[7]]]
    assert facts["parameter"] in dict(run.state.network.named_parameters())
    assert f"gradient of `{facts['parameter']}`" in metrics.troubles[0].what


def test_three_in_a_row_are_skipped_and_the_fourth_ends_it_across_stops_too(pictures, tmp_path):
    run = Run(pictures, tmp_path / "a")
    go(run, 12, spoilt(lambda step, j: step in (3, 4, 5, 7, 8, 9)))
    assert run.state.skipped == 6
    assert run.state.guard.in_a_row == 0
    first = Run(pictures, tmp_path / "b")
    go(first, 5, spoilt(lambda step, j: step >= 3))
    first.save()
    again = Run(pictures, tmp_path / "b")
    checkpoint.restore(checkpoint.newest(again.folder, print), again.model, again.state)
    assert again.state.guard.in_a_row == 2
    with pytest.raises(DivergedError, match=r"4 steps in a row.*12 of 12 samples") as caught:
        go(again, 40, spoilt(lambda step, j: step >= 3))
    assert caught.value.where == "step 7"
    assert caught.value.exit_code == 4
    assert not isinstance(caught.value, AstrayError)


def test_stopped_between_two_skips_and_resumed_gives_the_same_bits(pictures, tmp_path):
    changes = {**LEARNS, "optimizer": {"skip_spikes": True}}
    bad = spoilt(lambda step, j: step in (20, 21, 22) and j == 1)
    whole = Run(pictures, tmp_path / "whole", **changes)
    go(whole, 40, bad)
    rows = []
    for until in (21, 22, 40):
        part = Run(pictures, tmp_path / "parts", **changes)
        if newest := checkpoint.newest(tmp_path / "parts", print):
            checkpoint.restore(newest, part.model, part.state)
        go(part, until, bad)
        part.save()
        rows += part.rows
    left, right = whole.bits(), part.bits()
    assert [k for k in left if not torch.equal(left[k], right[k])] == []
    assert str(whole.rows) == str(rows)
    assert whole.state.guard == part.state.guard
    assert len(whole.state.guard.norms) == 37


@pytest.mark.parametrize(
    ("schedule", "output", "weight"),
    [
        (VE(), outputs.Karras(0.5), Karras(0.5)),
        (VE(), outputs.Eps(), VLB()),
        (VPLinear(), outputs.V(), V()),
        (VPLinear(), outputs.X0(), VLB()),
        (Flow(), outputs.Flow(), Karras(0.5)),
        (Flow(), outputs.Score(), V()),
    ],
)
def test_silence_is_the_loss_of_a_network_whose_output_is_zero(schedule, output, weight):
    """Averaged over 4000 draws of the noise, within four standard errors."""
    network = UNet(channels=1, dims=2, patch=1, widths=[8], blocks=1, attention=[])  # its last layer is 0
    denoiser = NetworkDenoiser(network, GaussianDiffusion(schedule), output)
    n, levels = 4000, torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64)
    for k, t in enumerate(levels):
        x0 = 0.4 + 0.3 * torch.sin(torch.arange(9.0)).view(1, 1, 3, 3)
        every, at = x0.expand(n, -1, -1, -1), t.expand(n)
        with torch.no_grad():
            each = denoising_loss(denoiser, every, at, SampleNoise([(k, i) for i in range(n)]), weight).double()
        expected = silence(denoiser, x0, t[None], weight).item()
        error = each.std().item() / math.sqrt(n)
        assert each.mean().item() == pytest.approx(expected, abs=4 * error + 1e-4 * expected)


def heeded(guard, ratios, first=1):
    """Tell a guard of so many steps."""
    for step, ratio in enumerate(ratios, first):
        guard.heed(ratio, 1.0, step, 1.0)


def first_astray(ratio: float) -> int:
    """The step at which a constant ratio from the second step on is a divergence: log r (1 - (15/16)^k) over log 2."""
    k = math.ceil(math.log(1 - math.log(2) / math.log(ratio)) / math.log(15 / 16))
    return 1 + k + ASTRAY - 1


@pytest.mark.parametrize("ratio", [2.5, 10.0, 1e6])
def test_a_loss_far_above_all_it_has_been_is_a_divergence_after_32_steps(ratio):
    guard = Guard()
    guard.heed(1.0, 1.0, 1, 1.0)
    with pytest.raises(AstrayError) as caught:
        heeded(guard, [ratio] * 9999, first=2)
    assert caught.value.where == f"step {first_astray(ratio)}"


def test_a_network_that_a_blow_up_has_left_dumb_is_a_divergence_and_one_that_recovers_is_not():
    for rest, falls in ((0.95, True), (0.6, False)):
        guard, step = Guard(), 0
        outcome = None
        try:
            for r in [1.0] * 10 + [8.0] * 20 + [rest] * 1000:
                step += 1
                guard.heed(r, 1.0, step, 1.0)
        except AstrayError as error:
            outcome = error
        assert (outcome is not None) == falls
        if falls:
            began = next(k for k in range(1, 99) if math.log(8) * (1 - (15 / 16) ** k) > math.log(1.35))
            assert outcome.where == f"step {10 + began + SHAKEN - 1}"
        else:
            guard.conclude(step, 1.0)


def test_a_learned_network_that_forgets_everything_is_a_divergence():
    guard = Guard()
    heeded(guard, [max(0.2, 1 - step / 200) for step in range(400)])
    with pytest.raises(AstrayError, match=r"it had been 0\.2"):
        heeded(guard, [1.0] * 200, first=400)


@pytest.mark.parametrize(("spread", "floor"), [(0.05, 0.3), (0.4, 0.5), (0.6, 0.9), (0.4, 1.0)])
def test_noise_alone_is_no_divergence(spread, floor):
    """Log-normal noise as of one sample a step (0.3 to 0.46 on digits) about courses that learn much, little, nothing."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        guard = Guard()
        for step in range(8000):
            course = floor + (1 - floor) * math.exp(-step / 300)
            guard.heed(course * math.exp(rng.normal(0, spread) - spread**2 / 2), 1.0, step, 1.0)
        guard.conclude(8000, 1.0)


def test_a_spike_is_one_beside_what_was_usual():
    rng = np.random.default_rng(0)
    guard = Guard()
    assert [guard.spike(float(n)) for n in np.exp(rng.normal(0, 0.3, 500))] == [None] * 500
    middle = float(np.median(guard.norms))
    assert guard.spike(100.0) == pytest.approx(100 / middle, rel=1e-3)
    assert guard.spike(3.0) is None
    wide = Guard()  # where gradients differ by e^2 anyway, ten times the median is nothing
    assert [wide.spike(float(n)) for n in np.exp(rng.normal(0, 2, 2000))].count(None) > 1995
    assert len(wide.norms) == 64


def test_spikes_are_told_and_skipped_where_asked(pictures, tmp_path):
    taken = {}
    for skip in (False, True):
        run = Run(pictures, tmp_path / str(skip), optimizer={"skip_spikes": skip})
        go(run, 30)
        before = bits(run)
        (metrics,) = go(run, 31, spoilt(lambda step, j: step == 30, 1e4))
        assert [one.kind for one in metrics.troubles] == ["spike"]
        taken[skip] = any(not torch.equal(before[k], v) for k, v in run.bits().items())
    assert taken == {False: True, True: False}


def test_what_the_guard_remembers_survives_json():
    guard = Guard(in_a_row=2, returns=1, micro_batch=5, level=-0.1, best=-0.3, began=0.05, astray=3, norms=[0.1, 1 / 3])
    assert Guard.of(json.loads(json.dumps(guard.numbers()))) == guard
    assert Guard.of({}) == Guard()


@pytest.mark.parametrize("where", ["raw", "ema.0.05", "ema.0.1", "optimizer"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_not_finite_is_never_written(pictures, tmp_path, where, value):
    run = Run(pictures, tmp_path)
    go(run, 3)
    good = run.save()
    go(run, 5)
    name = next(k for k, v in run.bits().items() if k.startswith(where) and v.ndim)
    with torch.no_grad():
        run.bits()[name].view(-1)[0] = value
    with pytest.raises(DivergedError, match="not finite are not written") as caught:
        run.save()
    assert name.removeprefix("raw.") in str(caught.value)
    assert checkpoint.newest(tmp_path, print) == good
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [good.name]
    if where == "raw":
        with pytest.raises(DivergedError):
            run.model.save(tmp_path / "model")
        assert not (tmp_path / "model").exists()


def short_above(count):
    """A loss that finds no memory for more than so many samples at once."""

    def compute(denoiser, x0, t, noise, weight, *, cond=None):
        if len(x0) > count:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")
        return denoising_loss(denoiser, x0, t, noise, weight, cond=cond)

    return compute


def test_a_batch_that_does_not_fit_is_done_in_parts_with_the_same_result(pictures, tmp_path):
    parts, whole = (Run(pictures, tmp_path / name, precision="float32") for name in ("parts", "whole"))
    told = go(parts, 6, short_above(3))[0].troubles
    expected = go(whole, 6)
    assert [one.facts["micro_batch"] for one in told] == [6, 3]
    assert parts.state.guard.micro_batch == 3
    assert [m.loss for m in parts.rows] == pytest.approx([m.loss for m in expected], rel=1e-4)
    for k, v in whole.state.network.state_dict().items():
        torch.testing.assert_close(parts.state.network.state_dict()[k], v, rtol=1e-2, atol=1e-4)
    parts.save()
    again = Run(pictures, tmp_path / "parts", precision="float32")
    checkpoint.restore(checkpoint.newest(again.folder, print), again.model, again.state)
    assert go(again, 7, short_above(3))[0].troubles == ()  # it knows


def test_where_three_halvings_do_not_help_nothing_was_done(pictures, tmp_path):
    run = Run(pictures, tmp_path)
    go(run, 2)
    before = bits(run)
    with pytest.raises(MemoryShortError, match="2 samples at once") as caught:  # 12, 6, 3, 2
        go(run, 3, short_above(1))
    assert caught.value.exit_code == 5
    assert run.state.step == 2
    assert [k for k, v in run.bits().items() if not torch.equal(before[k], v)] == []
    assert all(p.grad is None for p in run.state.network.parameters())
    run.save()


def test_later_nothing_is_halved(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("langevin.training.loop.FIRST_STEPS", 3)
    run = Run(pictures, tmp_path)
    compute = short_above(6)
    late = lambda *a, **k: compute(*a, **k) if run.state.step >= 3 else denoising_loss(*a, **k)  # noqa: E731
    with pytest.raises(MemoryShortError, match="12 samples at once"):
        go(run, 10, late)
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


def test_healthy_training_is_told_nothing(pictures, tmp_path):
    """Default rate, one sample a step, a law that follows the loss: not a word."""
    for k, changes in enumerate(({}, {"batch": 1}, {"batch": 2, "times": {"name": "loss_aware", "bins": 8}})):
        run = Run(pictures, tmp_path / str(k), steps=100, **changes)
        assert [m.troubles for m in go(run, 100) if m.troubles] == []
        assert run.state.guard.shaken == run.state.guard.astray == 0


def test_first_weights_again_are_those_of_the_first_time(pictures, tmp_path):
    from langevin.recipes.rescue import begin_anew

    run, fresh = Run(pictures, tmp_path / "a", **LEARNS), Run(pictures, tmp_path / "b", **LEARNS)
    before = bits(run)
    go(run, 9)
    begin_anew(run.state, TrainState.start(plan.make(run.config, run.dataset).denoiser.network, run.config))
    assert run.bits().keys() == before.keys()
    assert [k for k, v in run.bits().items() if not torch.equal(before[k], v)] == []
    run.rows.clear()
    go(run, 9)
    go(fresh, 9)
    assert run.rows == fresh.rows

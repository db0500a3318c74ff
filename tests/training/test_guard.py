"""Numbers that go wrong: what is skipped leaves no trace, where it began is named, what diverges is seen, what learns is not."""

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
from langevin.errors import DivergedError
from langevin.networks import UNet
from langevin.recipes import plan
from langevin.rng import SampleNoise
from langevin.training import TrainState, checkpoint
from langevin.training.guard import ASTRAY, SHAKEN, AstrayError, Guard, silence
from tests.training.runs import Run, in_sittings, same

LEARNS = {"times": {"name": "loss_aware", "bins": 4, "warm": 2}, "uncertainty": True, "precision": "float32"}


def spoilt(when, value=math.nan):
    """A loss that is `value` for the samples that `when(step, place in the batch)` names; batches are of 12."""

    def compute(denoiser, x0, t, noise, weight, *, cond=None):
        loss = denoising_loss(denoiser, x0, t, noise, weight, cond=cond)
        bad = torch.tensor([bool(when(key[1] // 12, key[1] % 12)) for key in noise.keys])
        return loss * torch.where(bad, value, 1.0)

    return compute


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_skipped_step_leaves_no_trace(pictures, tmp_path, value):
    """Weights, optimizer, averages, the moments of the time law and the learned uncertainty: bit for bit."""
    run = Run(pictures, tmp_path, **LEARNS)
    run.take(12)
    before = run.copied()
    (metrics,) = run.take(13, spoilt(lambda step, j: step == 12 and j == 5, value))
    assert run.changed(before) == []
    assert any(k.startswith("law.") for k in before)
    assert any(k.startswith("uncertainty.") for k in before)
    assert run.state.step == 13
    assert run.state.skipped == 1
    assert not math.isfinite(metrics.loss)
    run.take(14)
    assert [k for k in before if k.startswith("raw.") and torch.equal(before[k], run.bits()[k])] == []


def test_what_went_wrong_is_named(pictures, tmp_path):
    """The noise level, the item and the step are those of the samples that were spoilt, the layer is the one that was."""
    run = Run(pictures, tmp_path)
    run.take(3)
    bad = {2, 7}
    batch = run.feed.at(3)
    (metrics,) = run.take(4, spoilt(lambda step, j: step == 3 and j in bad))
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
    (metrics,) = run.take(5)
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
    run.take(3)
    batch = run.feed.at(3)
    handle = run.state.network.norm.register_forward_hook(lambda module, given, out: Poison.apply(out))
    (metrics,) = run.take(4)
    handle.remove()
    facts = metrics.troubles[0].facts
    assert facts["layer"] is None
    assert facts["items"] == [run.dataset.names[batch.rows[7]]]
    assert facts["parameter"] in dict(run.state.network.named_parameters())
    assert f"gradient of `{facts['parameter']}`" in metrics.troubles[0].what


def test_three_in_a_row_are_skipped_and_the_fourth_ends_it_across_stops_too(pictures, tmp_path):
    run = Run(pictures, tmp_path / "a")
    run.take(12, spoilt(lambda step, j: step in (3, 4, 5, 7, 8, 9)))
    assert run.state.skipped == 6
    assert run.state.guard.in_a_row == 0
    first = Run(pictures, tmp_path / "b")
    first.take(5, spoilt(lambda step, j: step >= 3))
    first.save()
    again = Run(pictures, tmp_path / "b").reopen()
    assert again.state.guard.in_a_row == 2
    with pytest.raises(DivergedError, match=r"4 steps in a row.*12 of 12 samples") as caught:
        again.take(40, spoilt(lambda step, j: step >= 3))
    assert caught.value.where == "step 7"
    assert caught.value.exit_code == 4
    assert not isinstance(caught.value, AstrayError)


def test_stopped_between_two_skips_and_resumed_gives_the_same_bits(pictures, tmp_path):
    changes = {**LEARNS, "optimizer": {"skip_spikes": True}}
    bad = spoilt(lambda step, j: step in (20, 21, 22) and j == 1)
    whole = Run(pictures, tmp_path / "whole", **changes)
    whole.take(40, bad)
    part = in_sittings((21, 22, 40), pictures, tmp_path / "parts", bad, **changes)
    same(whole, part)
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
        run.take(30)
        before = run.copied()
        (metrics,) = run.take(31, spoilt(lambda step, j: step == 30, 1e4))
        assert [one.kind for one in metrics.troubles] == ["spike"]
        taken[skip] = bool(run.changed(before))
    assert taken == {False: True, True: False}


def test_what_the_guard_remembers_survives_json():
    guard = Guard(in_a_row=2, returns=1, micro_batch=5, level=-0.1, best=-0.3, began=0.05, astray=3, norms=[0.1, 1 / 3])
    assert Guard.of(json.loads(json.dumps(guard.numbers()))) == guard
    assert Guard.of({}) == Guard()


@pytest.mark.parametrize("where", ["raw", "ema.0.05", "ema.0.1", "optimizer"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_not_finite_is_never_written(pictures, tmp_path, where, value):
    run = Run(pictures, tmp_path)
    run.take(3)
    good = run.save()
    run.take(5)
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


def test_healthy_training_is_told_nothing(pictures, tmp_path):
    """Default rate, one sample a step, a law that follows the loss: not a word."""
    for k, changes in enumerate(({}, {"batch": 1}, {"batch": 2, "times": {"name": "loss_aware", "bins": 8}})):
        run = Run(pictures, tmp_path / str(k), steps=100, **changes)
        assert [m.troubles for m in run.take(100) if m.troubles] == []
        assert run.state.guard.shaken == run.state.guard.astray == 0


def test_first_weights_again_are_those_of_the_first_time(pictures, tmp_path):
    from langevin.recipes.rescue import begin_anew

    run, fresh = Run(pictures, tmp_path / "a", **LEARNS), Run(pictures, tmp_path / "b", **LEARNS)
    before = run.copied()
    run.take(9)
    begin_anew(run.state, TrainState.start(plan.make(run.config, run.dataset).denoiser.network, run.config))
    assert run.changed(before) == []
    run.rows.clear()
    run.take(9)
    fresh.take(9)
    assert run.rows == fresh.rows

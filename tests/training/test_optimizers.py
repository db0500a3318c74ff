"""Each method against a second implementation; who decays, who is frozen, who follows whom; and nothing is forgotten on resume."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from langevin import store
from langevin.config import OptimizerConfig
from langevin.errors import RefusedError, UsageError
from langevin.networks import MLP, UNet
from langevin.training import checkpoint, optimizer
from langevin.training.optimizers.muon import A, B, C, orthogonal
from langevin.training.parameters import freeze, kinds
from tests.training.runs import Run, in_sittings, same

LABEL = {"label": {"kind": "class", "num": 3}}
UNET = {"channels": 1, "dims": 2, "patch": 1, "widths": [8, 8], "attention": [1], "head": 4, "conditions": LABEL}


# --- the methods -------------------------------------------------------------------------------------------------------


def _adamw(w, grad, steps, lr, betas, decay, **_):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, steps + 1):
        g = grad(w)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        w = w * (1 - lr * decay) - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + 1e-8)
    return w


def _lion(w, grad, steps, lr, betas, decay, **_):
    m = np.zeros_like(w)
    for _step in range(steps):
        g = grad(w)
        w = w - lr * (np.sign(betas[0] * m + (1 - betas[0]) * g) + decay * w)
        m = betas[1] * m + (1 - betas[1]) * g
    return w


def _muon(w, grad, steps, lr, decay, momentum=0.95, **_):
    """Keller Jordan's iteration as it is written down, on the whole matrix."""
    m = np.zeros_like(w)
    for _step in range(steps):
        g = grad(w)
        m = momentum * m + (1 - momentum) * g
        u = ((1 - momentum) * g + momentum * m).reshape(len(w), -1)
        x = u / np.linalg.norm(u)
        for _k in range(5):
            a = x @ x.T
            x = A * x + (B * a + C * a @ a) @ x
        w = w * (1 - lr * decay) - lr * 0.2 * math.sqrt(max(u.shape)) * x.reshape(w.shape)
    return w


@pytest.mark.parametrize(
    ("name", "other", "kind"), [("adamw", _adamw, "other"), ("lion", _lion, "hidden"), ("muon", _muon, "hidden")]
)
@pytest.mark.parametrize("shape", [(5, 7), (6, 3, 2, 2)])
def test_steps_on_a_quadratic_are_those_of_a_second_implementation(name, other, kind, shape):
    rng = np.random.default_rng(0)
    scales, start = rng.uniform(0.5, 2, shape), rng.standard_normal(shape)
    settings = OptimizerConfig(name=name, lr=0.01, weight_decay=0.1)
    expected = other(start, lambda w: scales * w, 30, lr=0.01, betas=(0.9, 0.99), decay=0.0 if kind == "other" else 0.1)
    w = torch.nn.Parameter(torch.tensor(start))  # float64, so that two formulas agree and two methods do not
    method = optimizer.make({"w": w}, settings, {"w": kind})
    for _ in range(30):
        w.grad = torch.tensor(scales) * w.detach()
        optimizer.set_rate(method, 0.01)
        method.step()
    np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_muon_is_torchs_up_to_its_bfloat16():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(48, 96)) for _ in range(2))
    method = optimizer.make({"w": ours}, OptimizerConfig(name="muon", lr=0.1), {"w": "hidden"})
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(48, 96)
        theirs.grad = ours.grad.clone()
        optimizer.set_rate(method, 0.1)
        method.step()
        reference.step()
    moved = (theirs - 1).detach()
    assert ((ours - theirs).norm() / moved.norm()).item() < 0.02
    assert moved.pow(2).mean().sqrt().item() == pytest.approx(3**0.5 * 0.1 * 0.2, rel=0.3)  # the size of AdamW's steps


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8), (3, 12, 20)])
def test_orthogonal_keeps_singular_vectors_and_brings_singular_values_near_one(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    got = orthogonal(g)
    U, s, Vh = torch.linalg.svd(g.double(), full_matrices=False)
    inner = U.mT @ got.double() @ Vh.mT
    found = inner.diagonal(dim1=-2, dim2=-1)
    s = s / s.norm(dim=-1, keepdim=True)
    for _ in range(5):  # what the polynomial does to each singular value
        s = A * s + B * s**3 + C * s**5
    torch.testing.assert_close(inner, torch.diag_embed(s), rtol=0, atol=2e-4)
    assert ((found > 0.65) & (found < 1.25)).double().mean() > 0.85
    assert found.max() < 1.25


def test_a_matrix_without_rank_or_without_gradient_stays_finite():
    assert torch.equal(orthogonal(torch.zeros(4, 6)), torch.zeros(4, 6))
    one = orthogonal(torch.ones(4, 6))
    torch.testing.assert_close(one, one.mean() * torch.ones(4, 6), rtol=1e-3, atol=1e-4)
    assert 0.65 < torch.linalg.matrix_norm(one, 2).item() < 1.25


# --- who is meant ------------------------------------------------------------------------------------------------------


def test_layers_between_the_ends_are_hidden_and_biases_norms_and_tables_are_other():
    found = kinds(UNet(**UNET))
    edges = {name for name, kind in found.items() if kind == "edge"}
    assert "down.0.0.modulation.weight" in edges
    assert {name for name in edges if "modulation" not in name} == {
        "conditions.noise.1.weight",
        "conditions.noise.3.weight",
        "enter.weight",
        "leave.weight",
    }
    hidden = {name for name, kind in found.items() if kind == "hidden"}
    assert {"down.0.0.conv.weight", "bottom.2.qkv.weight", "grow.0.weight"} <= hidden
    others = {name for name, kind in found.items() if kind == "other"}
    assert {"conditions.classes.label.weight", "norm.weight", "bottom.2.norm.weight"} <= others
    assert all(name.endswith("bias") for name in others if "norm" not in name and "classes" not in name)
    assert {n for n, k in kinds(MLP(channels=4, width=8)).items() if k == "hidden"} == {
        f"blocks.{i}.{layer}.weight" for i in range(3) for layer in ("wide", "out")
    }


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "torch.optim:SGD"])
def test_only_weights_of_layers_decay(name):
    """Without a gradient the step is the decay alone: (1 - lr * factor * decay), and nothing else moves."""
    network = UNet(**UNET)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1.0)
    named = dict(network.named_parameters())
    settings = OptimizerConfig(name=name, weight_decay=0.5, rates={"*": 0.5, "up.*": 0.1})
    method = optimizer.make(named, settings, kinds(network))
    before = {k: p.detach().clone() for k, p in named.items()}
    for p in named.values():
        p.grad = torch.zeros_like(p)
    optimizer.set_rate(method, 0.1)
    method.step()
    for k, p in named.items():
        factor = 0.0 if kinds(network)[k] == "other" else 0.1 if k.startswith("up.") else 0.5
        torch.testing.assert_close(p.detach(), before[k] * (1 - 0.1 * factor * 0.5), rtol=1e-6, atol=1e-7)
        if not factor:
            assert torch.equal(p.detach(), before[k])


def test_muon_leaves_what_is_no_hidden_matrix_to_adamw(pictures, tmp_path):
    muon, adamw = (
        Run(pictures, tmp_path / name, optimizer={"name": name, "warmup": 0}).go(1) for name in ("muon", "adamw")
    )
    left, right = (dict(run.state.network.named_parameters()) for run in (muon, adamw))
    for name, kind in kinds(muon.state.network).items():
        assert (kind == "hidden") == (f"momentum_buffer.{name}" in optimizer.tensors(muon.state.optimizer))
        if kind != "hidden":
            assert torch.equal(left[name], right[name])
    assert not torch.equal(left["leave.weight"], torch.zeros_like(left["leave.weight"]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "adamm"}, "did you mean `adamw`"),
        ({"name": "torch.optim:Nadam"}, "cannot be found"),
        ({"name": "torch.nn:Linear"}, "not a Optimizer"),
        ({"name": "torch.optim:LBFGS"}, "more than one gradient"),
        ({"settings": {"momentom": 0.9}, "name": "muon"}, "did you mean `momentum`"),
        ({"settings": {"momentum": 2.0}, "name": "muon"}, "lies in"),
        ({"settings": {"momentum": 0.9}}, "no setting `momentum`"),
        ({"name": "torch.optim:SGD", "betas": (0.9, 0.9)}, "no setting `betas`"),
        ({"name": "torch.optim:Rprop", "weight_decay": 0.1}, "no weight decay"),
        ({"rates": {"up.9.*": 0.5}}, r"`up.9.\*` matches no parameter.*did you mean `up.0.\*`"),
    ],
)
def test_mistakes_name_the_nearest_right_word(settings, said):
    network = UNet(**UNET)
    with pytest.raises(UsageError, match=said):
        optimizer.make(dict(network.named_parameters()), OptimizerConfig(**settings), kinds(network))


def test_each_method_has_its_own_rate_where_none_is_given():
    found = {name: optimizer.default_lr(name) for name in ("adamw", "muon", "lion", "torch.optim:RAdam")}
    assert found == {"adamw": 2e-3, "muon": 2e-3, "lion": 2e-4, "torch.optim:RAdam": 1e-3}


# --- how fast ----------------------------------------------------------------------------------------------------------


def _rate(p: float, **settings) -> float:
    return optimizer.learning_rate(p, OptimizerConfig(lr=1.0, **settings))


def test_courses_have_their_closed_forms():
    assert [_rate(p, warmup=0.2) / _rate(p, warmup=0) for p in (0.05, 0.1, 0.2, 0.7)] == pytest.approx(
        [0.25, 0.5, 1, 1]
    )
    at = [0.0, 0.25, 0.5, 1.0]
    assert [_rate(p, warmup=0, decay="linear") for p in at] == [1, 0.75, 0.5, 0]
    assert [_rate(p, warmup=0) for p in at] == pytest.approx([1, (2 + 2**0.5) / 4, 0.5, 0])
    assert [_rate(p, warmup=0, decay="constant") for p in at] == [1, 1, 1, 1]
    assert [_rate(p, warmup=0, decay="linear", hold=0.8) for p in (0, 0.8, 0.9, 1)] == pytest.approx([1, 1, 0.5, 0])
    assert [_rate(p, warmup=0, hold=0.5) for p in (0.4, 0.75, 1)] == pytest.approx([1, 0.5, 0])
    assert [_rate(p, warmup=0.04, decay="inverse_sqrt") for p in (0.02, 0.04, 0.16, 1)] == pytest.approx(
        [0.5, 1, 0.5, 0.2]
    )
    for decay in ("cosine", "linear", "inverse_sqrt"):
        course = [_rate(p, decay=decay) for p in np.linspace(0.02, 1, 50)]
        assert all(a >= b for a, b in pairwise(course))


# --- freezing ----------------------------------------------------------------------------------------------------------


def test_what_is_frozen_stays_bit_for_bit_and_is_remembered_by_nobody(pictures, tmp_path):
    run = Run(
        pictures, tmp_path / "r", freeze=["down.*", "conditions.*"], optimizer={"name": "muon", "weight_decay": 0.1}
    )
    before = {k: p.detach().clone() for k, p in run.state.network.named_parameters()}
    run.go(12)
    remembered = " ".join(optimizer.tensors(run.state.optimizer))
    for name, p in run.state.network.named_parameters():
        frozen = name.startswith(("down.", "conditions."))
        assert torch.equal(p.detach(), before[name]) == frozen
        assert p.requires_grad != frozen and (f".{name}" in remembered) != frozen
        for average in run.state.averages.values():
            assert torch.equal(average[name], before[name]) == frozen


def test_patterns_that_freeze_nothing_or_everything_are_refused():
    with pytest.raises(UsageError, match=r"`dwon.\*` matches no parameter.*did you mean `down.\*`"):
        freeze(UNet(**UNET), ["dwon.*"])
    with pytest.raises(UsageError, match="nothing is left to train"):
        freeze(UNet(**UNET), ["*"])


# --- resume ------------------------------------------------------------------------------------------------------------


class Counting(torch.optim.SGD):
    """Remembers numbers too: of each parameter how often it moved, of each group a length that shrinks."""

    def __init__(self, params, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            group["length"] = 1.0

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["length"] *= 0.9
            for p in group["params"]:
                known = self.state[p].setdefault("moves", 0)
                self.state[p]["moves"] = known + 1
                p.add_(p.grad, alpha=-group["lr"] * group["length"] / (1 + known))


EVERY = [
    {"name": "adamw", "weight_decay": 0.1, "rates": {"up.*": 0.5}},
    {"name": "muon", "weight_decay": 0.1, "rates": {"up.*": 0.5}},
    {"name": "lion", "decay": "linear", "hold": 0.5},
    {"name": "torch.optim:NAdam", "betas": [0.9, 0.95]},
    {"name": "tests.training.test_optimizers:Counting"},
]


@pytest.mark.parametrize("settings", EVERY, ids=lambda s: s["name"].rpartition(":")[2])
def test_resumed_in_the_middle_gives_the_same_bits(pictures, tmp_path, settings):
    changes = {"optimizer": {"lr": 1e-3, **settings}, "freeze": ["down.*"], "uncertainty": True, "steps": 20}
    whole = Run(pictures, tmp_path / "whole", **changes).go(20)
    part = in_sittings((0, 10, 20), pictures, tmp_path / "parts", **changes)  # at 0 nothing is remembered
    same(whole, part)
    assert whole.state.numbers()["optimizer"] == part.state.numbers()["optimizer"]


def test_a_checkpoint_from_when_there_was_only_adamw_is_read(pictures, tmp_path):
    """Its state is written here by hand as it was then: three tensors a parameter, five numbers."""
    run = Run(pictures, tmp_path / "r", uncertainty=True).go(6)
    named = {
        **dict(run.state.network.named_parameters()),
        "uncertainty.linear.weight": run.state.uncertainty.linear.weight,
    }
    old = {
        f"optimizer.{key}.{name}": run.state.optimizer.state[p][key]
        for name, p in named.items()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    old |= {f"ema.{s}.{k}": v for s, average in run.state.averages.items() for k, v in average.items()}
    old |= {f"uncertainty.{k}": v for k, v in run.state.uncertainty.state_dict().items()}
    state = run.state

    def write(folder):
        run.model.write(folder)
        store.write_tensors(folder / "training.safetensors", old)
        numbers = {"step": 6, "elapsed": state.elapsed, "rate": 1.0, "skipped": 0, "began": state.began}
        (folder / "state.json").write_text(json.dumps(numbers))

    path = store.write_folder(tmp_path / "r/checkpoints/step-000000006", write)
    again = Run(pictures, tmp_path / "r", uncertainty=True)
    checkpoint.restore(path, again.model, again.state)
    again.rows = run.rows[:]
    same(run.go(12), again.go(12))


def test_memory_of_another_method_is_refused(pictures, tmp_path):
    saved = Run(pictures, tmp_path / "r").go(2).save()
    other = Run(pictures, tmp_path / "o", optimizer={"name": "lion"})
    with pytest.raises(RefusedError, match="of the optimizer `adamw`, not `lion`"):
        checkpoint.restore(saved, other.model, other.state)
    fewer = Run(pictures, tmp_path / "f", freeze=["down.*"])
    with pytest.raises(RefusedError, match=r"optimizer\.exp_avg\.down\..* not known"):
        checkpoint.restore(saved, fewer.model, fewer.state)


def test_taken_back_twice_to_one_moment_it_goes_on_the_same(pictures, tmp_path):
    """What was given to `restore` is not moved by later steps, and going back to the start forgets everything."""
    run = Run(pictures, tmp_path / "r").go(3)
    kept = run.copied()
    moment = kept, run.state.numbers()
    found = []
    for _ in range(2):
        run.state.network.load_state_dict({k.removeprefix("raw."): v for k, v in kept.items() if k.startswith("raw.")})
        run.state.restore(*moment)
        found.append(run.go(6).copied())
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    first = Run(pictures, tmp_path / "f").state
    run.state.restore(first.tensors(), first.numbers())
    assert optimizer.tensors(run.state.optimizer) == {}

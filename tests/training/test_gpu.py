"""A GPU takes the steps of a CPU: the same batches, the same noise, the same losses; and it is not made to wait."""

import copy

import pytest
import torch

from langevin.diffusion import NetworkDenoiser
from langevin.recipes.solver_oracles import registered
from langevin.rng import keyed
from langevin.solvers import sample, trajectory
from langevin.training.determinism import deterministic
from langevin.training.distributed import World
from langevin.training.economy import economise
from tests.training.runs import Run, in_sittings, same

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # of compilers, on whatever they find
]
ADAPTIVE = ("dpm_adaptive", "rk45", "paradigms")
"""They look at an error, or at who has arrived, before they go on."""


@pytest.fixture(autouse=True)
def _exact_products():
    """Products of float32 in float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def losses(run: Run) -> torch.Tensor:
    return torch.tensor([row.loss for row in run.rows])


def test_steps_are_those_of_a_cpu(pictures, tmp_path):
    there = Run(pictures, tmp_path / "gpu", device="cuda", precision="float32").go(20)
    here = Run(pictures, tmp_path / "cpu", precision="float32").go(20)
    torch.testing.assert_close(losses(there), losses(here), rtol=1e-3, atol=1e-4)
    for name, value in here.state.network.state_dict().items():
        torch.testing.assert_close(there.state.network.state_dict()[name].cpu(), value, rtol=2e-2, atol=2e-3)


def test_stopped_and_resumed_gives_the_same_bits(pictures, tmp_path):
    given = {"device": "cuda", "deterministic": True}
    with deterministic(True):
        whole = Run(pictures, tmp_path / "whole", **given).go(40)
        same(whole, Run(pictures, tmp_path / "again", **given).go(40))
        same(whole, in_sittings((7, 23, 40), pictures, tmp_path / "parts", **given))


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_graphs_replay_what_is_computed_without_them(pictures, tmp_path, micro_batch):
    """Several averages, dropped labels and, with parts, gradients that add up over graphs."""
    given = {"device": "cuda", "precision": "float32", "micro_batch": micro_batch}
    plain = Run(pictures, tmp_path / "plain", **given).go(20)
    graphs = Run(pictures, tmp_path / "graphs", **given, compile=True)
    economise(graphs.model.denoiser.network, graphs.config, World(device=torch.device("cuda", 0)))
    graphs.go(20)
    torch.testing.assert_close(losses(graphs), losses(plain), rtol=1e-3, atol=1e-4)


def test_batches_that_are_read_ahead_are_the_same(pictures, tmp_path):
    feed = Run(pictures, tmp_path / "r", device="cuda").feed
    ahead = feed.ahead()
    assert ahead is not feed
    for step in (0, 1, 2, 9, 3):
        ours, theirs = ahead.at(step), feed.at(step)
        assert torch.equal(ours.x0, theirs.x0)
        assert torch.equal(ours.cond["label"], theirs.cond["label"])
        first, second = ours.noise(), theirs.noise()
        for _ in range(2):
            assert torch.equal(first(ours.x0), second(ours.x0))


@pytest.mark.parametrize("name", [name for name in registered() if not name.startswith(ADAPTIVE)])
def test_no_step_of_a_solver_waits_for_the_gpu(pictures, tmp_path, name):
    """As torch's own detector finds it; the first step may fill tables."""
    model, seeds = Run(pictures, tmp_path / "r", device="cuda").model, range(4)
    solver, denoiser = registered()[name], model.denoiser.eval()
    x = denoiser.process.prior((4, *model.shape), keyed(seeds)(0), device="cuda")
    times = model.grid()(denoiser.process.schedule, 8)
    steps = trajectory(denoiser, solver, x, times, noise=keyed(seeds))
    next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in steps:
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_training_step_waits_for_its_numbers_alone(pictures, tmp_path):
    """The loss, the norm of the gradient and the power of the data that the guard compares: three reads, no more."""
    run = Run(pictures, tmp_path / "r", device="cuda").go(5)
    seen: list[str] = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz") as caught:
            run.go(6)
        seen += [str(w.message) for w in caught if "synchroniz" in str(w.message)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 1 <= len(seen) <= 3, seen


def test_samples_are_those_of_a_cpu(pictures, tmp_path):
    run = Run(pictures, tmp_path / "r", precision="float32").go(40)
    here = run.model.denoiser.eval()
    there = NetworkDenoiser(copy.deepcopy(here.network).cuda(), here.process, here.parametrization)
    for name in ("dpmpp", "ancestral", "edm"):
        times = run.model.grid()(here.process.schedule, 12)
        given = {"shape": run.model.shape, "times": times, "seeds": range(8)}
        a, b = (sample(denoiser, registered()[name], **given) for denoiser in (here, there))
        torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=2e-3)


def test_bfloat16_with_float32_weights_learns_as_float32_does(pictures, tmp_path):
    wide = Run(pictures, tmp_path / "wide", device="cuda", precision="float32", steps=200).go(200)
    half = Run(pictures, tmp_path / "half", device="cuda", precision="bfloat16", steps=200).go(200)
    assert {p.dtype for p in half.state.network.parameters()} == {torch.float32}
    a, b = (losses(run)[100:].mean().item() for run in (wide, half))
    assert b == pytest.approx(a, rel=0.03)

"""What a network draws by itself: the same at the same step, other numbers at another, and nothing is left behind."""

import pytest
import torch
from torch import nn

from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.weights import Weight
from langevin.errors import UsageError
from langevin.networks import MLP, UNet
from langevin.networks.layers import Residual
from langevin.registry import build
from langevin.training.chance import chance
from langevin.training.private import private_gradient
from tests.training.runs import TINY, Run, in_sittings, same

CPU = torch.device("cpu")


def _draw(*key: int) -> torch.Tensor:
    with chance([key], CPU):
        return nn.functional.dropout(torch.ones(4000), 0.25, training=True)


def test_draws_are_a_function_of_the_first_samples_key_and_disturb_nobody():
    torch.manual_seed(1)
    expected = torch.rand(6)
    torch.manual_seed(1)
    parts = [torch.rand(3), _draw(7, 40, 0, 3), torch.rand(3)]
    assert torch.equal(torch.cat([parts[0], parts[2]]), expected)
    assert torch.equal(parts[1], _draw(7, 40, 0, 3))
    for other in ((7, 41, 0, 3), (8, 40, 0, 3)):
        both = ((parts[1] == 0) & (_draw(*other) == 0)).double().mean().item()
        assert both == pytest.approx(1 / 16, abs=5 * (1 / 16 * 15 / 16 / 4000) ** 0.5)  # independent masks


def test_with_dropout_a_resumed_run_has_the_same_bits(pictures, tmp_path):
    changes = {"steps": 14, "network": {**TINY, "dropout": 0.3}, "micro_batch": 5}
    whole = Run(pictures, tmp_path / "whole", **changes).go(14)
    torch.manual_seed(6)  # whatever the process drew before
    same(whole, in_sittings((6, 14), pictures, tmp_path / "parts", **changes))
    without = Run(pictures, tmp_path / "without", **{**changes, "network": TINY}).go(14)
    assert without.rows[-1].loss != whole.rows[-1].loss


def test_gradients_of_single_items_drop_the_same_each_time(pictures, tmp_path):
    run = Run(pictures, tmp_path / "r", network={**TINY, "dropout": 0.3}, private={"noise": 0.5, "draws": 2}, steps=4)
    run.state.network.train()
    weight, found = build(dict(run.config.weight), Weight), []
    with torch.no_grad():  # the first output is exactly zero: wake it up
        for p in run.state.network.parameters():
            p.add_(0.05 * torch.sin(torch.arange(p.numel(), dtype=torch.float32)).view_as(p))
    for mode in (True, True, False):
        run.state.network.train(mode)
        of = run.model.denoiser, run.feed.at(0), run.config, run.state, weight, denoising_loss
        private_gradient(*of, unseen=run.feed)
        found.append(torch.cat([p.grad.flatten() for p in run.state.network.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_dropout_keeps_the_mean_and_acts_in_training_alone():
    """Behind the mask a residual block is linear: the mean over masks is the output without one."""
    torch.manual_seed(0)
    block = Residual(2, 4, 4, 8, dropout=0.4)
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.3 * torch.randn_like(p))
        x, e = torch.randn(1, 4, 3, 3), torch.randn(1, 8)
        many = block(x.expand(4000, -1, -1, -1), e.expand(4000, -1))
        expected = block.eval()(x, e)
    error = many.std(0) / 4000**0.5
    assert ((many.mean(0) - expected[0]).abs() < 5 * error).all()
    assert (error > 0).any()


@pytest.mark.parametrize("make", [lambda p: MLP(channels=4, dropout=p), lambda p: UNet(channels=1, dropout=p)])
def test_networks_hand_dropout_to_every_block_and_names_of_weights_stay(make):
    found = [m.p for m in make(0.3).modules() if isinstance(m, nn.Dropout)]
    assert found == [0.3] * sum(name.endswith("modulation.weight") for name, _ in make(0.0).named_parameters())
    assert make(0.3).state_dict().keys() == make(0.0).state_dict().keys()
    with pytest.raises(UsageError, match="dropout lies in"):
        make(1.0)

"""How far a run comes is said before its first step, and trying it changes nothing."""

import math
import re
import time

import pytest
import torch

from langevin import data
from langevin.config import parse
from langevin.recipes import forecast, plan
from langevin.recipes.console import Console
from langevin.recipes.train import train
from langevin.training import TrainState, fit
from langevin.training.distributed import ALONE
from tests.training.runs import TINY


@pytest.fixture
def prepared():
    dataset = data.open("digits")
    config = plan.resolve(parse({"data": {"path": "digits"}, "minutes": 1, "network": TINY, "batch": 8}), dataset)
    model = plan.make(config, dataset)
    state = TrainState.start(model.denoiser.network, config)
    return model, state, plan.feed(config, dataset, model.codec, state, ALONE), config


def test_where_the_held_out_loss_will_end_follows_from_its_slope():
    """A loss that falls from 0.3 to 0.25 while the share doubles promises as much for every doubling that is left."""
    low, high = forecast.expected([(0.1, 0.4), (0.25, 0.3), (0.4, 0.27), (0.5, 0.25)])
    assert low == pytest.approx(0.25 * (0.25 / 0.3) ** 0.65 * math.exp(-0.005))
    assert high == pytest.approx(0.25 * (0.25 / 0.3) ** 0.25 * math.exp(0.005))
    # looks need not lie where the share was half: in the middle of logarithms lies the middle of logarithms
    between = forecast.expected(
        [(0.1, math.sqrt(0.4 * 0.225)), (0.125, 0.4), (0.5, 0.225), (0.6, 0.21), (1 / 1.5, 0.2)]
    )
    at_third = 0.4 * (0.225 / 0.4) ** (math.log(8 / 3) / math.log(4))
    assert between[0] == pytest.approx(0.2 * (0.2 / at_third) ** (0.65 * math.log2(1.5)) * math.exp(-0.005))
    assert forecast.expected([(0.05, 0.36), (0.1, 0.3), (0.2, 0.25)]) is None  # too early
    assert forecast.expected([(0.1, 0.3), (0.2, 0.25), (0.4, 0.25)]) is None  # it does not fall any more
    assert (
        forecast.expected([(0.3, 0.3), (0.35, 0.26), (0.4, 0.25)]) is None
    )  # a sitting that began late knows no slope
    slight = forecast.expected([(0.1, 0.256), (0.45, 0.2501), (0.9, 0.25)])
    assert slight[1] == 0.25  # it learns: the end is no worse than now


def test_trying_a_step_touches_nothing_of_the_run(prepared):
    model, state, feed, config = prepared
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    torch.manual_seed(3)
    seconds = forecast.step_seconds(model.denoiser, feed, config)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
    assert all(torch.equal(v, before[k]) for k, v in model.denoiser.state_dict().items())
    assert all(p.grad is None for p in model.denoiser.parameters())
    steps = fit(model.denoiser, feed, config.model_copy(update={"minutes": None, "steps": 40}), state)
    assert len(list(steps)) == 40
    assert seconds > 0


def test_the_numbers_follow_from_each_other(prepared, monkeypatch):
    model, _, feed, config = prepared
    monkeypatch.setattr(forecast, "step_seconds", lambda *_: 0.048)
    said = forecast.line(model.denoiser, feed, config, ALONE, time.perf_counter() - 30)
    items = len(feed.indices)  # 0.96 of 30 s in steps of 0.048 s are 600
    assert f"about 600 steps of 48 ms: 4,800 seen of {items:,} items, each {4800 / items:.1f} times" in said
    assert forecast.line(model.denoiser, feed, config, ALONE, time.perf_counter() - 61) is None
    by_steps = config.model_copy(update={"minutes": None, "steps": 5})
    assert forecast.line(model.denoiser, feed, by_steps, ALONE, time.perf_counter()) is None


@pytest.mark.parametrize(
    ("minutes", "widths"),
    # 48 channels for so few items, times (steps / 20,000)^0.15, with 57.6 s of a minute going into steps of 57.6 ms
    [(1, [32, 64]), (10, [48, 96]), (100, [64, 128]), (1000, [80, 160]), (10_000, [96, 192]), (0.01, [32, 64])],
)
def test_the_network_grows_with_the_budget(minutes, widths, monkeypatch):
    monkeypatch.setattr(forecast, "step_seconds", lambda *_: 0.0576)
    dataset = data.open("digits")
    config = parse({"data": {"path": "digits"}, "minutes": minutes})
    chosen = forecast.resolve(config, dataset, ALONE, time.perf_counter())
    assert chosen.network["widths"] == widths
    own = parse({"data": {"path": "digits"}, "minutes": minutes, "network": {"features": 64}})
    assert forecast.resolve(own, dataset, ALONE, time.perf_counter()) == plan.resolve(own, dataset)


def test_a_run_says_it(in_tmp):
    run = train("digits", minutes=0.1, settings={"network": str(TINY).replace("'", '"')}, console=Console("quiet"))
    log = (run.path / "run.log").read_text()
    assert re.search(r"forecast   about [\d,]+ steps of \S+ ms: [\d,]+ seen of 1,602 items", log)

"""Private training: gradients of single items, clipping, noise of the stated size, and what is spent."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from langevin.config import PrivateConfig
from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.weights import Weight
from langevin.errors import UsageError
from langevin.registry import build
from langevin.rng import SampleNoise
from langevin.training import TrainState, fit
from langevin.training.private import (
    PrivateFeed,
    _orders,
    _spending,
    clipped_sum,
    epsilon,
    most_steps,
    noise_for,
    noise_of,
    per_sample_gradients,
    private_gradient,
    settle,
)
from langevin.training.secret import CHOICE, Secret
from tests.training.runs import TINY, prepared

PRIVATE = {"noise": 0.8, "draws": 3, "clip": 0.5}


class Run:
    """A private run in memory."""

    def __init__(self, path, secret=Secret((7, 9)), **changes) -> None:
        base = {"steps": 20, "batch": 12, "network": {**TINY, "attention": [1]}, "ema": [0.1], "private": PRIVATE}
        self.dataset, self.config, self.model = prepared(path, **{**base, "precision": "float32", **changes})
        self.state = TrainState.start(self.model.denoiser.network, self.config)
        self.state.secret = secret
        rows, c = self.dataset.train_indices, self.config
        self.feed = PrivateFeed(
            self.dataset,
            self.model.codec,
            rows,
            c.seed,
            c.batch,
            drop=c.dropout,
            state=self.state,
            draws=c.private.draws,
        )
        self.weight = build(dict(c.weight), Weight)
        with torch.no_grad():  # the first output is exactly zero: wake it up
            for p in self.state.network.parameters():
                p.add_(0.05 * torch.sin(torch.arange(p.numel(), dtype=torch.float32)).view_as(p))

    def gradient(self) -> dict[str, torch.Tensor]:
        batch, denoiser = self.feed.at(self.state.draw), self.model.denoiser
        private_gradient(denoiser, batch, self.config, self.state, self.weight, denoising_loss, unseen=self.feed.unseen)
        return {k: p.grad.clone() for k, p in denoiser.named_parameters()}


def _by_a_loop(run):
    """Each item's gradient by itself, with plain autograd."""
    batch, K = run.feed.at(0), run.config.private.draws
    t, _ = run.state.law(batch.u, run.model.denoiser.process.schedule)
    for k in range(0, len(batch), K):
        part = slice(k, k + K)
        denoiser = copy.deepcopy(run.model.denoiser)
        cond = {name: value[part] for name, value in batch.cond.items()}
        noise = SampleNoise(batch.keys[part])
        denoising_loss(denoiser, batch.x0[part], t[part], noise, run.weight, cond=cond).mean().backward()
        yield {name: p.grad for name, p in denoiser.named_parameters()}


def test_gradients_of_single_items_equal_a_loop_over_them(pictures):
    run = Run(pictures)
    batch, K = run.feed.at(0), run.config.private.draws
    t, importance = run.state.law(batch.u, run.model.denoiser.process.schedule)
    eps = batch.noise()(batch.x0)
    parts = [v.unflatten(0, (-1, K)) for v in (batch.x0, t, eps, importance)]
    cond = {name: value.unflatten(0, (-1, K)) for name, value in batch.cond.items()}
    found = per_sample_gradients(run.model.denoiser, denoising_loss, run.weight, *parts, cond)
    for i, alone in enumerate(_by_a_loop(run)):
        scale = max(g.abs().max().item() for g in alone.values())
        for name, g in alone.items():
            torch.testing.assert_close(found[name][i], g, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("at_once", [None, 5])
def test_the_gradient_is_the_clipped_sum_and_the_noise_of_its_draw(pictures, at_once):
    run = Run(pictures, micro_batch=at_once)
    settings, total = run.config.private, None
    for alone in _by_a_loop(run):
        norm = math.sqrt(sum(g.square().sum().item() for g in alone.values()))
        cut = {k: g * min(1, settings.clip / norm) for k, g in alone.items()}
        total = cut if total is None else {k: total[k] + g for k, g in cut.items()}
    parameters = dict(run.model.denoiser.named_parameters())
    z = noise_of(run.state.secret, 0, parameters)
    for k, g in run.gradient().items():
        expected = (total[k] + settings.noise * settings.clip * z[k]) / run.config.batch
        torch.testing.assert_close(g, expected, rtol=1e-5, atol=1e-6)


def test_a_step_that_takes_no_item_is_noise_alone(pictures):
    run = Run(pictures, batch=1, steps=3)
    run.state.lost = next(n for n in range(100) if not len(run.feed.rows(n)))
    settings, z = (
        run.config.private,
        noise_of(run.state.secret, run.state.draw, dict(run.model.denoiser.named_parameters())),
    )
    for k, g in run.gradient().items():
        torch.testing.assert_close(g, settings.noise * settings.clip * z[k], rtol=1e-6, atol=0)
    rows = list(fit(run.model.denoiser, run.feed, run.config, run.state))
    assert [(m.step, m.troubles) for m in rows] == [(1, ()), (2, ()), (3, ())]


def test_the_noise_is_standard_normal_and_never_the_same_twice():
    shape = {"a": torch.zeros(300, 300), "b": torch.zeros(100, 100)}
    first, second = (noise_of(Secret((3, 4)), draw, shape) for draw in (0, 1))
    both = torch.cat([v.flatten() for one in (first, second) for v in one.values()]).double()
    assert abs(both.mean().item()) < 4 / math.sqrt(len(both))
    assert both.var().item() == pytest.approx(1, abs=4 * math.sqrt(2 / len(both)))
    halves = both.view(2, -1)
    assert abs((halves[0] * halves[1]).mean().item()) < 4 / math.sqrt(len(both) / 2)
    assert not torch.equal(noise_of(Secret((3, 5)), 0, shape)["a"], first["a"])
    assert Secret.new() != Secret.new()


def test_no_item_moves_the_sum_by_more_than_the_clipping_norm():
    rng = torch.Generator().manual_seed(0)
    gradients = {"a": torch.randn(6, 4, 5, generator=rng) * 10, "b": torch.randn(6, 3, generator=rng)}
    gradients["a"][2] *= 1e-4  # a small one is left as it is
    gradients["b"][2] *= 1e-4
    gradients["a"][4, 0, 0] = math.nan
    gradients["b"][5, 1] = math.inf
    whole, norms = clipped_sum(gradients, 0.7)
    for i in range(6):
        without = {k: torch.cat([g[:i], g[i + 1 :]]) for k, g in gradients.items()}
        rest, _ = clipped_sum(without, 0.7)
        moved = math.sqrt(sum((whole[k] - rest[k]).square().sum().item() for k in whole))
        assert moved == pytest.approx({2: norms[2].item(), 4: 0.0, 5: 0.0}.get(i, 0.7), rel=1e-4, abs=1e-7)


def test_items_are_taken_by_themselves_with_the_stated_probability(pictures):
    run = Run(pictures)
    n, draws = len(run.feed.indices), 400
    taken = np.stack([run.state.secret.generator(d, CHOICE).random(n) < 12 / n for d in range(draws)])
    for d in (0, 7):
        assert np.array_equal(run.feed.rows(d), np.repeat(run.feed.indices[taken[d]], 3))
    q = 12 / n
    assert taken.mean() == pytest.approx(q, abs=4 * math.sqrt(q * (1 - q) / taken.size))
    counts = taken.sum(1)  # binomial: a fixed batch would have no variance
    assert counts.var() == pytest.approx(n * q * (1 - q), rel=0.4)
    keys = [key for d in range(20) for key in run.feed.at(d).keys]
    assert len(set(keys)) == len(keys)


PUBLISHED = [
    # TensorFlow Privacy's MNIST tutorial: 60,000 items, batch 256, delta 1e-5: (noise, epochs, epsilon)
    (1.3, 15, 1.19),
    (1.1, 60, 3.01),
    (0.7, 45, 7.10),
]


@pytest.mark.parametrize(("noise", "epochs", "published"), PUBLISHED)
def test_what_is_spent_is_what_others_published(noise, epochs, published):
    """They turned Renyi's divergence into epsilon as Mironov did in 2017; the form used here is tighter."""
    pytest.importorskip("opacus")
    rate, steps, delta = 256 / 60_000, epochs * 60_000 // 256, 1e-5
    renyi, orders = _spending(noise, rate, steps), np.array(_orders())
    assert (renyi + math.log(1 / delta) / (orders - 1)).min() == pytest.approx(published, rel=0.01)
    assert 0.7 * published < epsilon(noise, rate, steps, delta) < published


def test_what_is_spent_of_one_step_on_all_items_is_the_gaussian_mechanism():
    """Without sampling, Renyi's divergence of order a is a / (2 noise^2), and epsilon its best conversion at delta."""
    pytest.importorskip("opacus")
    noise, delta = 2.0, 1e-5
    orders = np.linspace(1.1, 200, 200_000)
    renyi = orders / (2 * noise**2)
    best = (renyi + np.log((orders - 1) / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)).min()
    assert epsilon(noise, 1.0, 1, delta) == pytest.approx(best, rel=2e-3)


def test_noise_and_steps_are_found_for_a_wanted_epsilon():
    pytest.importorskip("opacus")
    noise = noise_for(3.0, 0.01, 2000, 1e-5)
    assert epsilon(noise, 0.01, 2000, 1e-5) <= 3.0 < epsilon(noise * 0.995, 0.01, 2000, 1e-5)
    n = most_steps(3.0, 1.0, 0.01, 1e-5)
    assert epsilon(1.0, 0.01, n, 1e-5) <= 3.0 < epsilon(1.0, 0.01, n + 1, 1e-5)
    settled = settle(PrivateConfig(epsilon=3.0), 10_000, 100, 2000)
    assert settled.delta == 1e-5
    assert settled.noise == pytest.approx(noise)
    assert settled.steps >= 2000
    with pytest.raises(UsageError, match="noise of private training is open"):
        settle(PrivateConfig(epsilon=3.0), 10_000, 100, None)
    with pytest.raises(UsageError, match="one step spends more"):
        settle(PrivateConfig(epsilon=0.01, noise=0.3), 100, 50, None)


def test_a_run_ends_where_its_epsilon_is_spent_and_goes_on_after_a_resume(pictures):
    """The limit counts draws, so that steps which were taken back and done again are paid for twice."""
    limited = {**PRIVATE, "steps": 9}
    run = Run(pictures, private=limited)
    rows = list(fit(run.model.denoiser, run.feed, run.config, run.state))
    assert rows[-1].step == 9
    parts = Run(pictures, private=limited)
    for metrics in fit(parts.model.denoiser, parts.feed, parts.config, parts.state):
        if metrics.step == 4:
            break
    other = Run(pictures, private=limited, secret=Secret.new())
    other.state.network.load_state_dict(parts.state.network.state_dict())
    other.state.restore(parts.state.tensors(), parts.state.numbers())
    assert other.state.secret == Secret((7, 9))
    again = list(fit(other.model.denoiser, other.feed, other.config, other.state))
    assert [dataclasses.replace(m, elapsed=0) for m in again] == [dataclasses.replace(m, elapsed=0) for m in rows[4:]]
    taken_back = Run(pictures, private=limited)
    taken_back.state.lost = 5
    assert list(fit(taken_back.model.denoiser, taken_back.feed, taken_back.config, taken_back.state))[-1].step == 4

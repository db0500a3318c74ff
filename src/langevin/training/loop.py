"""The training loop: a generator. Progress, validation, pictures, checkpoints and logs belong to who consumes it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from langevin.config import TrainConfig
from langevin.diffusion.loss import denoising_loss, hybrid_loss
from langevin.diffusion.times import LossAware
from langevin.diffusion.weights import Weight
from langevin.registry import build
from langevin.training.diagnosis import diagnose
from langevin.training.distributed import ALONE, World, gradients, total_norm
from langevin.training.feed import Batch, Feed
from langevin.training.gradient import Loss, Losses, gradient
from langevin.training.guard import Trouble, finite, mean_silence, silence
from langevin.training.memory import FIRST_STEPS, REHEARSED, fits_everywhere, in_parts
from langevin.training.optimizer import learning_rate, parameters, set_rate
from langevin.training.private import AT_ONCE, PrivateFeed, private_gradient, share
from langevin.training.state import TrainState
from langevin.training.terms import Terms


@dataclass(frozen=True)
class Metrics:
    """One step of a run.

    Attributes:
        step: 1, 2, ...
        progress: share of the budget that is spent, 0 to 1.
        elapsed: seconds of wall clock, over all sittings.
        samples: samples seen.
        loss: mean weighted loss of the batch; in a private run that of a few held-out items.
        lr: the learning rate used.
        grad_norm: norm of the gradient before clipping; not finite where the step was skipped.
        troubles: what went wrong at this step.
    """

    step: int
    progress: float
    elapsed: float
    samples: int
    loss: float
    lr: float
    grad_norm: float
    troubles: tuple[Trouble, ...] = ()

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON; troubles only where there are any."""
        found = asdict(self)
        return found if self.troubles else {k: v for k, v in found.items() if k != "troubles"}


def fit(
    denoiser: Any,
    feed: Feed,
    config: TrainConfig,
    state: TrainState,
    *,
    compute: Loss | None = None,
    started: float | None = None,
    world: World = ALONE,
    stop: Any = None,
) -> Iterator[Metrics]:
    """Train until the budget is spent, one Metrics a step.

    Between two yields `state` is consistent: it can be saved, and a run that goes on from it takes the same steps (by
    `steps`; under a budget of minutes the learning rate follows the clock).

    Args:
        denoiser: on `state.network`; a NetworkDenoiser, or whatever has a `process` and is trained by `compute`.
        compute: the loss; the config's where it is not given.
        started: `time.perf_counter()` from which this sitting's wall clock counts; now, where it is not given.
        world: all processes of the run; `feed` gives this one's part of every batch.
        stop: `asked` is the signal that this process got, or 0; `heard` is told after each step what all of them got.

    Raises:
        DivergedError: losses or gradients that are not finite in four steps in a row, or finite ones of a run that is lost;
            `guard` says when. The state is whole, and none to go on from.
        MemoryShortError: a step does not fit into memory. No step was taken, and the state can be saved.
    """
    if config.minutes is None and config.steps is None:
        raise ValueError("a run needs minutes or steps")
    feed = feed.ahead()
    compute = compute or (hybrid_loss if config.loss == "hybrid" else denoising_loss)
    weight = build(dict(config.weight or {"name": "karras"}), Weight, foreign=True)
    moved = parameters(state.optimizer)
    before, start = state.elapsed, time.perf_counter() if started is None else started
    find: Callable[..., Losses] = partial(gradient, world=world, total=feed.batch)
    if private := isinstance(feed, PrivateFeed):
        find = partial(private_gradient, unseen=feed.unseen)
    terms = state.terms or Terms(feed.batch, config.steps, config.minutes)
    sitting, usual = state.step, AT_ONCE if config.private else -(-feed.batch // world.size)

    def clock() -> float:
        return before + time.perf_counter() - start

    if state.step == 0 and world.is_main:
        state.began = clock()
    denoiser.train()
    state.optimizer.zero_grad(set_to_none=True)  # those of a step that sent the run back are no part of the next
    while True:
        if world.is_main:  # whose clock it is; the others have it from the call to the step
            state.elapsed = clock()
        progress = max(terms.spent(state.step, state.elapsed), share(config, state))
        if progress >= 1:
            state.guard.conclude(state.step, state.rate * config.optimizer.lr)
            return
        # the half step keeps the first step's rate above zero where steps are few
        at = terms.share(state.step + 0.5) if terms.steps else _course(state, 60 * (config.minutes or 0))
        warmth = terms.warmth(at, config.optimizer.warmup)
        lr = state.rate * max(warmth * learning_rate(at, config.optimizer), 1e-6 * config.optimizer.lr)
        world.call("step", state.elapsed, state.began)
        batch = feed.at(state.draw)

        def rehearse(now: TrainConfig, batch: Batch = batch) -> bool:
            alone = partial(gradient, denoiser, batch, now, state, weight, compute)
            return fits_everywhere(alone, world, denoiser, state.uncertainty)

        losses, troubles = in_parts(
            lambda now, batch=batch: find(denoiser, batch, now, state, weight, compute),  # type: ignore[misc]
            config,
            state,
            usual,
            early=world.size == 1 and state.step < sitting + FIRST_STEPS,
            rehearse=rehearse if world.parallel == "ddp" and state.step < sitting + REHEARSED else None,
        )
        slopes = gradients(moved)
        state.scale.down(slopes)
        total = total_norm(moved)  # on its way before anything below waits for the device
        if not private:
            losses = replace(losses, silent=silence(denoiser, batch.x0, losses.t, weight))
        losses, said = losses.pooled(world, feed.batch, [0 if stop is None else stop.asked])
        loss, norm = losses.mean(), total.item()
        state.step += 1
        is_sound = finite(loss, norm)
        if state.scale.heed(is_sound, config.precision):
            pass  # the scale was too large, and the run is as sound as it was
        elif not is_sound:
            what, facts = "on held-out items", dict[str, Any]()
            if not private:
                what, facts = diagnose(denoiser, batch, config, state, weight, compute, feed.dataset.names, world)
            troubles.append(Trouble("skipped", f"not finite, skipped: {what}", facts))
            state.skipped += 1
            state.guard.skip(state.step, what, lr)
        elif (jump := state.guard.spike(norm)) and config.optimizer.skip_spikes:
            troubles.append(Trouble("spike", f"a gradient {jump:,.0f} times the usual, skipped", {"times": jump}))
            state.skipped += 1
        else:
            if jump:
                troubles.append(Trouble("spike", f"a gradient {jump:,.0f} times the usual", {"times": jump}))
            if norm + 1e-6 > config.optimizer.clip:
                torch._foreach_mul_(slopes, config.optimizer.clip / (total + 1e-6))
            if isinstance(state.law, LossAware):
                state.law = state.law.update(losses.t, losses.each)
            set_rate(state.optimizer, lr)
            state.optimizer.step()
            state.average()
            state.guard.heed(loss, mean_silence(losses.silent, losses.importance), state.step, lr)
        state.optimizer.zero_grad(set_to_none=True)
        if world.is_main:
            state.elapsed = clock()
        if stop is not None and any(asked := [int(one[0]) for one in said]):
            stop.heard(max(asked))
        yield Metrics(
            state.step,
            min(progress, 1.0),
            state.elapsed,
            int(terms.samples(state.step)),
            loss,
            lr,
            norm,
            tuple(troubles),
        )


def _course(state: TrainState, budget: float) -> float:
    """Share of the time between the first step and the end of the budget, in seconds, that is over."""
    return (state.elapsed - state.began) / max(budget - state.began, 1e-9)

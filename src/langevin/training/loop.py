"""The training loop: a generator. Progress, validation, pictures, checkpoints and logs belong to who consumes it."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from langevin.config import TrainConfig
from langevin.diffusion.loss import denoising_loss, hybrid_loss
from langevin.diffusion.times import LossAware
from langevin.diffusion.weights import Weight
from langevin.errors import DivergedError
from langevin.registry import build
from langevin.training.feed import Feed
from langevin.training.gradient import Loss, gradient
from langevin.training.optimizer import learning_rate, parameters, set_rate
from langevin.training.private import private_gradient
from langevin.training.state import TrainState

MAX_SKIPPED = 10
"""So many steps in a row may give numbers that are not finite; the next ends the run."""


@dataclass(frozen=True)
class Metrics:
    """One step of a run.

    Attributes:
        step: 1, 2, ...
        progress: share of the budget that is spent, 0 to 1.
        elapsed: seconds of wall clock, over all sittings.
        samples: samples seen.
        loss: mean weighted loss of the batch.
        lr: the learning rate used.
        grad_norm: norm of the gradient before clipping; not finite where the step was skipped.
    """

    step: int
    progress: float
    elapsed: float
    samples: int
    loss: float
    lr: float
    grad_norm: float


def fit(
    denoiser: Any,
    feed: Feed,
    config: TrainConfig,
    state: TrainState,
    *,
    compute: Loss | None = None,
    started: float | None = None,
) -> Iterator[Metrics]:
    """Train until the budget is spent, one Metrics a step.

    Between two yields `state` is consistent: it can be saved, and a run that goes on from it takes the same steps (by
    `steps`; under a budget of minutes the learning rate follows the clock).

    Args:
        denoiser: on `state.network`; a NetworkDenoiser, or whatever has a `process` and is trained by `compute`.
        compute: the loss; the config's where it is not given.
        started: `time.perf_counter()` from which this sitting's wall clock counts; now, where it is not given.

    Raises:
        DivergedError: losses or gradients that are not finite, in more than ten steps in a row.
    """
    if config.minutes is None and config.steps is None:
        raise ValueError("a run needs minutes or steps")
    compute = compute or (hybrid_loss if config.loss == "hybrid" else denoising_loss)
    weight = build(dict(config.weight or {"name": "karras"}), Weight, foreign=True)
    moved = parameters(state.optimizer)
    before, start = state.elapsed, time.perf_counter() if started is None else started
    find = private_gradient if config.private else gradient
    in_a_row = 0
    if state.step == 0:
        state.began = before + time.perf_counter() - start
    denoiser.train()
    while True:
        state.elapsed = before + time.perf_counter() - start
        progress = state.step / config.steps if config.steps else state.elapsed / (60 * (config.minutes or 0))
        if config.private and config.private.steps:
            progress = max(progress, state.draw / config.private.steps)
        if progress >= 1:
            return
        # the half step keeps the first step's rate above zero where steps are few
        at = (state.step + 0.5) / config.steps if config.steps else _course(state, 60 * (config.minutes or 0))
        lr = state.rate * max(learning_rate(at, config.optimizer), 1e-6 * config.optimizer.lr)
        losses = find(denoiser, feed.at(state.draw), config, state, weight, compute)
        if isinstance(state.law, LossAware):
            state.law = state.law.update(losses.t, losses.each)
        loss = losses.mean()
        norm = torch.nn.utils.clip_grad_norm_(moved, config.optimizer.clip).item()
        if math.isfinite(norm) and math.isfinite(loss):
            in_a_row = 0
            set_rate(state.optimizer, lr)
            state.optimizer.step()
            state.step += 1
            state.average()
        else:
            in_a_row += 1
            state.step += 1
            state.skipped += 1
            if in_a_row > MAX_SKIPPED:
                raise DivergedError(
                    f"{in_a_row} steps in a row gave numbers that are not finite",
                    where=f"step {state.step}",
                    help=f"lower optimizer.lr (now {config.optimizer.lr:g}); check the data with `langevin data check`",
                )
        state.optimizer.zero_grad(set_to_none=True)
        state.elapsed = before + time.perf_counter() - start
        yield Metrics(state.step, min(progress, 1.0), state.elapsed, state.step * feed.batch, loss, lr, norm)


def _course(state: TrainState, budget: float) -> float:
    """Share of the time between the first step and the end of the budget, in seconds, that is over."""
    return (state.elapsed - state.began) / max(budget - state.began, 1e-9)

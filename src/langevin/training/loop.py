"""The training loop: a generator. Progress, validation, pictures, checkpoints and logs belong to who consumes it."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin.config import OptimizerConfig, TrainConfig
from langevin.diffusion.loss import denoising_loss, hybrid_loss
from langevin.diffusion.parametrization import noise_level
from langevin.diffusion.times import LossAware
from langevin.diffusion.weights import Weight
from langevin.errors import DivergedError
from langevin.registry import build
from langevin.rng import SampleNoise
from langevin.training.feed import Feed
from langevin.training.state import TrainState

Loss = Callable[..., Tensor]
"""(what is trained, x0, t, noise, weight, cond=) -> (B,); see `diffusion.loss`."""
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


def learning_rate(progress: float, settings: OptimizerConfig) -> float:
    """Linear warm-up, then half a cosine down to 0 at the end of the budget."""
    warm = min(1.0, progress / settings.warmup) if settings.warmup else 1.0
    return settings.lr * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


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
    parameters = state.optimizer.param_groups[0]["params"]
    before, start = state.elapsed, time.perf_counter() if started is None else started
    in_a_row = 0
    if state.step == 0:
        state.began = before + time.perf_counter() - start
    denoiser.train()
    while True:
        state.elapsed = before + time.perf_counter() - start
        progress = state.step / config.steps if config.steps else state.elapsed / (60 * (config.minutes or 0))
        if progress >= 1:
            return
        # the half step keeps the first step's rate above zero where steps are few
        at = (state.step + 0.5) / config.steps if config.steps else _course(state, 60 * (config.minutes or 0))
        lr = state.rate * max(learning_rate(at, config.optimizer), 1e-6 * config.optimizer.lr)
        loss = _gradient(denoiser, feed, config, state, weight, compute)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip).item()
        if math.isfinite(norm) and math.isfinite(loss):
            in_a_row = 0
            state.optimizer.param_groups[0]["lr"] = lr
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


def _gradient(
    denoiser: Any,
    feed: Feed,
    config: TrainConfig,
    state: TrainState,
    weight: Weight,
    compute: Loss = denoising_loss,
) -> float:
    """Add the gradient of one batch, in micro-batches; the mean loss."""
    x0, cond = feed.data(state.step)
    schedule = denoiser.process.schedule
    t, importance = state.law(feed.times(state.step), schedule)
    keys = feed.noise(state.step).keys
    size = config.micro_batch or feed.batch
    losses: list[Tensor] = []
    for k in range(0, feed.batch, size):
        part = slice(k, k + size)
        some = {name: value[part] for name, value in cond.items()}
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            loss = compute(denoiser, x0[part], t[part], SampleNoise(keys[part]), weight, cond=some)
        losses.append(loss.detach())
        if state.uncertainty is not None:
            level = noise_level(schedule.alpha(t[part]), schedule.sigma(t[part]))
            loss = state.uncertainty(loss, level)
        (loss * importance[part].to(loss)).sum().div(feed.batch).backward()
    every = torch.cat(losses)
    if isinstance(state.law, LossAware):
        state.law = state.law.update(t, every)
    return float((every * importance.to(every)).mean())

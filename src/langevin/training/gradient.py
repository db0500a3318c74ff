"""The gradient of one batch, found in as many parts as memory asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin.config import TrainConfig
from langevin.diffusion.parametrization import noise_level
from langevin.diffusion.weights import Weight
from langevin.rng import SampleNoise
from langevin.training.feed import Batch
from langevin.training.state import TrainState

Loss = Callable[..., Tensor]
"""(what is trained, x0, t, noise, weight, cond=) -> (B,); see `diffusion.loss`."""


@dataclass(frozen=True)
class Losses:
    """What a step's samples cost.

    Attributes:
        t: (B,) their times.
        each: (B,) weighted losses.
        importance: (B,) what the time law weighs them by.
    """

    t: Tensor
    each: Tensor
    importance: Tensor

    def mean(self) -> float:
        """The loss that is made small."""
        return float((self.each * self.importance.to(self.each)).mean()) if len(self.each) else 0.0


def gradient(
    denoiser: Any, batch: Batch, config: TrainConfig, state: TrainState, weight: Weight, compute: Loss
) -> Losses:
    """Add the gradient of the batch's mean loss to the parameters', in micro-batches."""
    schedule = denoiser.process.schedule
    t, importance = state.law(batch.u, schedule)
    size = config.micro_batch or len(batch)
    each: list[Tensor] = []
    for k in range(0, len(batch), size):
        part = slice(k, k + size)
        x0, some = batch.x0[part], {name: value[part] for name, value in batch.cond.items()}
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            loss = compute(denoiser, x0, t[part], SampleNoise(batch.keys[part]), weight, cond=some)
        each.append(loss.detach())
        if state.uncertainty is not None:
            level = noise_level(schedule.alpha(t[part]), schedule.sigma(t[part]))
            loss = state.uncertainty(loss, level)
        (loss * importance[part].to(loss)).sum().div(len(batch)).backward()
    return Losses(t, torch.cat(each), importance)

"""The gradient of one batch, found in as many parts as memory asks for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from langevin.config import TrainConfig
from langevin.diffusion.parametrization import noise_level
from langevin.diffusion.shapes import beside
from langevin.diffusion.weights import Weight
from langevin.training.chance import chance
from langevin.training.distributed import ALONE, World
from langevin.training.feed import Batch
from langevin.training.state import TrainState

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
Loss = Callable[..., Tensor]
"""(what is trained, x0, t, noise, weight, cond=) -> (B,); see `diffusion.loss`."""


@dataclass(frozen=True)
class Losses:
    """What a step's samples cost.

    Attributes:
        t: (B,) their times.
        each: (B,) weighted losses.
        importance: (B,) what the time law weighs them by.
        silent: (B,) those of a network that says nothing, where they are known; see `guard`.
    """

    t: Tensor
    each: Tensor
    importance: Tensor
    silent: Tensor | None = None

    def mean(self) -> float:
        """The loss that is made small."""
        return float((self.each * self.importance.to(self.each)).mean()) if len(self.each) else 0.0

    def pooled(self, world: World, total: int, numbers: Iterable[float]) -> "tuple[Losses, list[list[float]]]":
        """Those of all processes in the order of the batch, and what numbers each process has to say."""
        own = {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        if world.size == 1:
            return self, [list(numbers)]
        rows = torch.stack([v.to(world.device, torch.float64) for v in own.values()], 1)
        every, said = world.pool(rows, numbers, total)
        return replace(self, **{k: every[:, i].to(v) for i, (k, v) in enumerate(own.items())}), said


def gradient(
    denoiser: Any,
    batch: Batch,
    config: TrainConfig,
    state: TrainState,
    weight: Weight,
    compute: Loss,
    *,
    world: World = ALONE,
    total: int | None = None,
) -> Losses:
    """Add the gradient of the batch's mean loss to the parameters', in micro-batches.

    Args:
        batch: this process's part of `total` samples, over all of which the mean is taken.
    """
    schedule = denoiser.process.schedule
    t, importance = state.law(batch.u, schedule)
    share, half = (total or len(batch)) / world.size, HALVES.get(config.precision)
    size = config.micro_batch or len(batch)
    each: list[Tensor] = []
    for k in range(0, len(batch), size):
        part = slice(k, k + size)
        x0, some = batch.x0[part], {name: value[part] for name, value in batch.cond.items()}
        with world.travelling(denoiser, state.uncertainty, last=k + size >= len(batch)):
            with chance(batch.keys[part], x0.device), torch.autocast(x0.device.type, half, enabled=half is not None):
                loss = compute(denoiser, x0, t[part], batch.noise(part), weight, cond=some)
            each.append(loss.detach())
            if state.uncertainty is not None:
                level = noise_level(schedule.alpha(t[part]), schedule.sigma(t[part]))
                loss = state.uncertainty(loss, level)
            state.scale.up((loss * beside(importance[part], loss)).sum().div(share)).backward()
    world.mean_gradients(state.uncertainty)
    return Losses(t, torch.cat(each), importance)

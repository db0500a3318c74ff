"""Held-out loss at fixed noise, one figure a noise level.

The levels are the middles of equal shares of the time law that the run trains on, the noise is fixed by a seed: the mean
over levels estimates the training objective on data the network never saw, and two runs or two moments can be compared.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser
from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.rng import SampleNoise

_STREAM = 4


@dataclass(frozen=True)
class LevelLoss:
    """Losses per noise level and their mean.

    Attributes:
        ratios: sigma / alpha of each level, increasing.
        losses: mean weighted loss at each.
    """

    ratios: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over levels."""
        return sum(self.losses) / len(self.losses)


@torch.no_grad()
def held_out_loss(
    denoiser: Denoiser,
    x0: Tensor,
    cond: Condition,
    law: TimeLaw,
    weight: Weight,
    *,
    levels: int = 8,
    seed: int = 0,
    batch: int = 128,
) -> LevelLoss:
    """The loss of held-out x0 (N, ...) at every level, with noise keyed (seed, item, level)."""
    schedule = denoiser.process.schedule
    middles = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    t = law(middles, schedule)[0].sort().values
    losses = []
    for level, at in enumerate(t):
        total = 0.0
        for rows in torch.arange(len(x0)).split(batch):
            noise = SampleNoise([(seed, i, level, _STREAM) for i in rows.tolist()])
            some = {name: value[rows] for name, value in cond.items()}
            loss = denoising_loss(denoiser, x0[rows], at.expand(len(rows)), noise, weight, cond=some)
            total += loss.sum().item()
        losses.append(total / len(x0))
    return LevelLoss(tuple(torch.exp(-0.5 * schedule.log_snr(t)).tolist()), tuple(losses))

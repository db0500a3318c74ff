"""The loss at fixed noise on fixed items, one figure a noise level: on held-out items, and beside it on training items.

The levels are the middles of equal shares of the time law that the run trains on, the noise is fixed by a seed: the mean
over levels estimates the training objective on items, and two runs or two moments can be compared. Items differ far more
from each other than one item does from look to look, so the losses are kept item by item: differences between looks, and
their standard errors, are taken of pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.diffusion import Condition, Denoiser
from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.rng import SampleNoise

LEVELS = 8
BATCH = 128
"""So many losses are measured at once."""
_STREAM = 4


@dataclass(frozen=True, eq=False)
class LevelLoss:
    """Losses of N items at L noise levels.

    Attributes:
        ratios: (L,) sigma / alpha of each level, increasing.
        each: (N, L) mean weighted loss of each item at each level, over its draws of the noise.
    """

    ratios: tuple[float, ...]
    each: NDArray[np.float64]

    @property
    def losses(self) -> tuple[float, ...]:
        """(L,) the mean over items."""
        return tuple(self.each.mean(0).tolist())

    @property
    def items(self) -> tuple[float, ...]:
        """(N,) the mean over levels."""
        return tuple(self.each.mean(1).tolist())

    @property
    def mean(self) -> float:
        """The mean over items and levels."""
        return float(self.each.mean())

    def above(self, other: "LevelLoss") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(L,) how far this lies above the losses of other items, and (L,) the standard error of that.

        The items are not the same: their variances add. The error is nan where a side has one item.
        """
        sides = (self.each, other.each)
        variance = sum(e.var(0, ddof=1) / len(e) if len(e) > 1 else np.full(e.shape[1], np.nan) for e in sides)
        return self.each.mean(0) - other.each.mean(0), np.sqrt(variance)


@torch.no_grad()
def held_out_loss(
    denoiser: Denoiser,
    x0: Tensor,
    cond: Condition,
    law: TimeLaw,
    weight: Weight,
    *,
    levels: int = LEVELS,
    draws: int = 1,
    seed: int = 0,
    batch: int = BATCH,
) -> LevelLoss:
    """The loss of x0 (N, ...) at every level, with `draws` of the noise an item, keyed (seed, item and draw, level).

    The same weights give the same bits.
    """
    schedule = denoiser.process.schedule
    middles = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    t = law(middles, schedule)[0].sort().values
    found = []
    for rows in torch.split(torch.arange(len(x0) * draws * levels), batch):
        first, level = rows // levels, rows % levels
        noise = SampleNoise([(seed, *key, _STREAM) for key in zip(first.tolist(), level.tolist(), strict=True)])
        item = (first // draws).to(x0.device)
        some = {name: value[item] for name, value in cond.items()}
        found.append(denoising_loss(denoiser, x0[item], t[level], noise, weight, cond=some))
    each = torch.cat(found).double().cpu().reshape(len(x0), draws, levels).mean(1)
    return LevelLoss(tuple(torch.exp(-0.5 * schedule.log_snr(t)).tolist()), each.numpy())

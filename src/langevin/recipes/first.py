"""RUN/first-batch.png: what the network is shown, after augmentation, with its labels, and beneath it the same under noise."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from langevin.data.show import grid
from langevin.model import Model
from langevin.recipes.outcome import save_picture
from langevin.recipes.watch import Began, Event
from langevin.training.feed import Batch

ACROSS = 8
"""So many of the batch's items are shown."""
LEVELS = 3
"""At so many noise levels: the middles of equal shares of the time law."""
NAME = "first-batch.png"


def first_batch(event: Event) -> None:
    """A watcher: draws the first batch of a run that begins. Pictures alone, and none of a private run's: nobody is to see them."""
    if not isinstance(event, Began) or event.step or event.config.private or event.model.modality != "image":
        return
    if not (target := event.folder / NAME).exists():
        save_picture(sheet(event.model, event.feed.at(0), event), target)


def sheet(model: Model, batch: Batch, began: Began) -> Image.Image:
    """The first items of a batch, decoded; then, level by level, as they are under their own noise.

    A noised item is scaled to the contrast of the data, as the network's input is:
    x_t s / sqrt(alpha_t^2 s^2 + sigma_t^2), where s^2 is the batch's mean square.
    """
    count = min(ACROSS, len(batch))
    x0, schedule = batch.x0[:count], model.denoiser.process.schedule
    s = batch.x0.double().square().mean().sqrt().item()
    middles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    rows, captions = [_decoded(model, x0)], _labels(model, batch, count)
    for t in began.law(middles, schedule)[0].sort().values:
        alpha, sigma = schedule.alpha(t).item(), schedule.sigma(t).item()
        x_t = model.denoiser.process.corrupt(x0, t.expand(count), batch.noise(slice(count)))
        rows.append(_decoded(model, x_t * (s / np.hypot(alpha * s, sigma))))
        captions += [f"sigma {sigma / alpha:.3g}", *[""] * (count - 1)]
    return grid(np.concatenate(rows), columns=count, captions=captions)


def _decoded(model: Model, z: Tensor) -> np.ndarray:
    return model.codec.decode(z).cpu().numpy()


def _labels(model: Model, batch: Batch, count: int) -> list[str]:
    if "label" not in batch.cond:
        return [f"item {row}" for row in batch.rows[:count]]
    return [(*model.classes, "(no label)")[k] for k in batch.cond["label"][:count].tolist()]

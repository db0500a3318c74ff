"""What a step learns from: a pure function of the run's seed and the step. No workers, no resumes, no order of calls."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langevin.data.augment import flip
from langevin.data.codec.base import Codec
from langevin.data.dataset import Dataset
from langevin.data.order import stretch
from langevin.rng import SampleNoise, generator, uniforms

# streams of the run's generator
_TIMES, _DROPOUT, _NOISE = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one step.

    Attributes:
        rows: (B,) which items of the data they are.
        x0: (B, ...) in model space.
        cond: conditions, each (B, ...).
        u: (B,) stratified uniform numbers for the time law.
        keys: of each sample's noise.
    """

    rows: np.ndarray
    x0: Tensor
    cond: dict[str, Tensor]
    u: Tensor
    keys: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def noise(self) -> SampleNoise:
        """From its first number on."""
        return SampleNoise(self.keys)


@dataclass(frozen=True, eq=False)
class Feed:
    """The batches of a run.

    Args:
        indices: the items to learn from.
        batch: samples a step, over all processes.
        drop: share of samples that lose their condition.
        mirror: whether pictures are mirrored at random.
        offset: place of the first step's first sample, where an earlier sitting had other terms; see `terms`.
        rank, world: which of how many processes this is: it is given its own part of every batch.
    """

    dataset: Dataset
    codec: Codec
    indices: np.ndarray
    seed: int
    batch: int
    drop: float = 0.0
    mirror: bool = False
    device: torch.device | str = "cpu"
    offset: int = 0
    rank: int = 0
    world: int = 1

    def at(self, step: int) -> Batch:
        """What step 0, 1, ... learns from."""
        every, first = self.rows(step), self.place(step)
        count = len(every)
        mine = slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)
        rows = every[mine]
        x0, cond = self.items(rows)
        if self.mirror:
            x0 = flip(x0, self.seed, rows, step)
        if "label" in cond and self.drop:
            dropped = generator(self.seed, step, 0, _DROPOUT).random(count)[mine] < self.drop
            none = len(self.dataset.classes)
            cond["label"] = torch.where(torch.from_numpy(dropped).to(self.device), none, cond["label"])
        keys = [(self.seed, first + j, 0, _NOISE) for j in range(count)[mine]]
        return Batch(rows, x0, cond, uniforms(count, self.seed, step, 0, _TIMES)[mine], keys)

    def rows(self, step: int) -> np.ndarray:
        """The items of a step, for all processes."""
        return stretch(self.seed, self.indices, self.place(step), self.batch)

    @property
    def is_private(self) -> bool:
        """Whether losses of its items are to be known to nobody."""
        return False

    def place(self, step: int) -> int:
        """Place of a step's first sample in the endless stream of samples, whose noise is keyed by it."""
        return step * self.batch + self.offset

    def items(self, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Items and conditions as they are; a missing label is the index one past the last."""
        raw = torch.from_numpy(self.dataset.take(rows)).to(self.device)
        cond = {}
        if self.dataset.classes:
            label = torch.from_numpy(self.dataset.columns["label"][rows].astype(np.int64)).to(self.device)
            cond["label"] = torch.where(label < 0, len(self.dataset.classes), label)
        return self.codec.encode(raw), cond

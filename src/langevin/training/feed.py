"""What a step learns from: a pure function of the run's seed and the step. No workers, no resumes, no order of calls."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from langevin.data.augment import flip
from langevin.data.codec.base import Codec
from langevin.data.dataset import Dataset
from langevin.data.order import stretch
from langevin.rng import SampleNoise, generator, uniforms

AHEAD = 4
"""Threads that read ahead; each twice."""
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
        made: (B, ...) the first draw of it, where it was made ahead.
    """

    rows: np.ndarray
    x0: Tensor
    cond: dict[str, Tensor]
    u: Tensor
    keys: list[tuple[int, ...]]
    made: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def noise(self, part: slice = slice(None)) -> SampleNoise:
        """That of these samples, from its first number on."""
        return SampleNoise(self.keys[part], None if self.made is None else self.made[part])


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
        return self._sent(step, self._read(step))

    def ahead(self) -> "Feed":
        """The same batches; for a GPU, threads read the items and draw the noise of the next steps while it computes this one."""
        if torch.device(self.device).type != "cuda" or self.is_private:
            return self
        return _Ahead(**{f.name: getattr(self, f.name) for f in fields(self)})

    def _read(self, step: int) -> Batch:
        """On the CPU, items raw."""
        every, first = self.rows(step), self.place(step)
        count = len(every)
        mine = slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)
        rows = every[mine]
        raw, cond = self._raw(rows)
        if "label" in cond and self.drop:
            dropped = generator(self.seed, step, 0, _DROPOUT).random(count)[mine] < self.drop
            cond["label"][torch.from_numpy(dropped)] = len(self.dataset.classes)
        keys: list[tuple[int, ...]] = [(self.seed, first + j, 0, _NOISE) for j in range(count)[mine]]
        return Batch(rows, raw, cond, uniforms(count, self.seed, step, 0, _TIMES)[mine], keys)

    def _sent(self, step: int, batch: Batch) -> Batch:
        """To the device, in model space."""
        x0, cond = self._encoded(batch.x0, batch.cond)
        if self.mirror:
            x0 = flip(x0, self.seed, batch.rows, step)
        return replace(batch, x0=x0, cond=cond)

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
        return self._encoded(*self._raw(rows))

    def _raw(self, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        cond = {}
        if self.dataset.classes:
            label = torch.from_numpy(self.dataset.columns["label"][rows].astype(np.int64))
            cond["label"] = torch.where(label < 0, len(self.dataset.classes), label)
        return torch.from_numpy(self.dataset.take(rows)), cond

    def _encoded(self, raw: Tensor, cond: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        there = {name: value.to(self.device, non_blocking=True) for name, value in cond.items()}
        return self.codec.encode(raw.to(self.device, non_blocking=True)), there


@dataclass(frozen=True, eq=False)
class _Ahead(Feed):
    """The same batches, read in threads a few steps before they are asked for."""

    def at(self, step: int) -> Batch:
        shape, wanted = self._shape, range(step, step + 2 * AHEAD)  # threads leave the device alone
        for k in [k for k in self._reading if k not in wanted]:
            self._reading.pop(k).cancel()
        for k in wanted:
            if k not in self._reading:
                self._reading[k] = self._threads.submit(self._made, k, shape)
        return self._sent(step, self._reading.pop(step).result())

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(AHEAD, "feed")  # they end with this object

    @cached_property
    def _reading(self) -> dict[int, Future[Batch]]:
        return {}

    @cached_property
    def _shape(self) -> torch.Size:
        """Of an item in model space."""
        return self.items(self.indices[:1])[0].shape[1:]

    def _made(self, step: int, shape: torch.Size) -> Batch:
        """Read, its noise drawn, and lying where a GPU can fetch it by itself."""
        batch = self._read(step)
        noise = batch.noise()(torch.empty(len(batch), *shape))
        cond = {name: _pinned(value) for name, value in batch.cond.items()}
        return replace(batch, x0=_pinned(batch.x0), cond=cond, made=_pinned(noise))


def _pinned(value: Tensor) -> Tensor:
    return value.pin_memory() if torch.cuda.is_available() else value

"""Runs in memory, as a recipe makes them."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from langevin import data
from langevin.config import TrainConfig, parse
from langevin.model import Model
from langevin.recipes import plan
from langevin.training import TrainState, checkpoint, fit
from langevin.training.feed import Feed
from langevin.training.gradient import Loss
from langevin.training.loop import Metrics

TINY = {"name": "unet", "channels": 1, "dims": 2, "patch": 1, "widths": [8, 8], "attention": []}


def prepared(path: Path, **settings: Any) -> tuple[data.Dataset, TrainConfig, Model]:
    """Data, settings and a fresh model."""
    dataset = data.open(path)
    config = plan.resolve(parse({"data": {"path": str(path)}, **settings}), dataset)
    return dataset, config, plan.make(config, dataset)


class Run:
    """A run of 40 steps of 12 items, where nothing else is said."""

    def __init__(self, path: Path, folder: Path, *, device: str = "cpu", **changes: Any) -> None:
        self.folder = folder
        base = {"steps": 40, "batch": 12, "network": TINY, "ema": [0.05, 0.1]}
        self.dataset, self.config, self.model = prepared(path, **{**base, **changes})
        self.state = TrainState.start(self.model.to(device).denoiser.network, self.config)
        rows, c = self.dataset.train_indices, self.config
        self.feed = Feed(self.dataset, self.model.codec, rows, c.seed, c.batch, drop=c.dropout, device=device)
        self.rows: list[Metrics] = []

    def take(self, until: int, compute: Loss | None = None) -> list[Metrics]:
        """Go on until so many steps are done; what these were, but for the clock."""
        before = len(self.rows)
        for metrics in fit(self.model.denoiser, self.feed, self.config, self.state, compute=compute):
            self.rows.append(dataclasses.replace(metrics, elapsed=0.0))
            if metrics.step >= until:
                break
        return self.rows[before:]

    def go(self, until: int, compute: Loss | None = None) -> "Run":
        """The same run, so many steps on."""
        self.take(until, compute)
        return self

    def bits(self) -> dict[str, torch.Tensor]:
        """All tensors, as they are held."""
        return {**self.state.tensors(), **{f"raw.{k}": v for k, v in self.state.network.state_dict().items()}}

    def copied(self) -> dict[str, torch.Tensor]:
        """All tensors, as they are now."""
        return {k: v.clone() for k, v in self.bits().items()}

    def changed(self, since: dict[str, torch.Tensor]) -> list[str]:
        """Names of the tensors that are not those any more."""
        now = self.bits()
        assert now.keys() == since.keys()
        return [k for k in since if not torch.equal(since[k], now[k])]

    def save(self) -> Path:
        return checkpoint.save(self.folder, self.model, self.state)

    def reopen(self) -> "Run":
        """Go on from the newest checkpoint, where there is one."""
        if newest := checkpoint.newest(self.folder, print):
            checkpoint.restore(newest, self.model, self.state)
        return self


def in_sittings(stops: Iterable[int], path: Path, folder: Path, compute: Loss | None = None, **changes: Any) -> Run:
    """A run that is saved and left at each of these steps; the last of those that went on with it, with the rows of all."""
    rows: list[Metrics] = []
    for until in stops:
        part = Run(path, folder, **changes).reopen()
        rows += part.take(until, compute) if until else []  # 0: saved before its first step
        part.save()
    part.rows = rows
    return part


def same(a: Run, b: Run) -> None:
    """They have the same bits, and came there the same way."""
    assert a.changed(b.bits()) == []
    assert str(a.rows) == str(b.rows)  # as text nan is nan

"""When a run looks at itself, on how many items, and what it makes of what it sees.

The first look comes after 64 steps, each later one when the run has grown by a share, at first, and at even distances later:
a small set is overfitted early in a run and a large one late. When and how much is a function of steps and batch; a
run by minutes takes the steps that it seems to come to. Rows of looks in metrics.jsonl hold all that is needed to go on,
and to judge again.
"""

import hashlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langevin.diffusion import Denoiser
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.errors import DivergedError
from langevin.evaluation.noise_levels import BATCH, LEVELS, LevelLoss, held_out_loss
from langevin.evaluation.verdict import Verdict, judge, looks_of
from langevin.recipes.progress import Curve, draw
from langevin.training.feed import Feed

FIRST = 64
"""Steps before the first look."""
SHARE, MOST_SHARE = 0.01, 0.02
"""Of a run's passes through the network, so many go into looks, and so many may where a run is short; a step takes three a
sample."""
PIECES = ((12, MOST_SHARE), (8, MOST_SHARE), (6, MOST_SHARE), (4, 0.05), (3, 0.05))
"""Looks lie a budget over the first of these apart, where the second, a share, then leaves each look enough items."""
LEAST, MOST = 16, 128
"""Losses a look takes at each noise level, on either side."""


@dataclass(frozen=True)
class Rhythm:
    """When to look and at how much.

    Attributes:
        steps: of the whole run, as far as is known.
        pieces: of the run, in which the looks are apart.
        count: losses a look takes at each noise level of held-out items, and as many of training items.
    """

    steps: int
    pieces: int
    count: int

    @staticmethod
    def of(steps: int, batch: int) -> "Rhythm":
        """For a run of so many steps; one that is too short for looks has no pieces and looks at its end alone."""
        for pieces, share in PIECES:
            rhythm = Rhythm(steps, pieces, MOST)
            number, place = 1, FIRST
            while rhythm.worthwhile(place / steps):
                number, place = number + 1, rhythm.after(place)
            fits = 3 * steps * batch / (2 * LEVELS * number)
            if share * fits >= LEAST and number > 1:
                return Rhythm(steps, pieces, min(max(int(SHARE * fits), LEAST), MOST))
        return Rhythm(steps, 0, LEAST)

    def after(self, step: float) -> int:
        """The step of the look after one at `step`."""
        return int(step + max(min(5 * step, self.steps) / max(self.pieces, 1), 1))

    def worthwhile(self, share: float) -> bool:
        """Whether to look at that share of the run: not shortly before the end, where there is a look anyway."""
        return bool(self.pieces) and share < 1 - 0.5 / self.pieces


class Looks:
    """The looks of one sitting.

    Args:
        rows: of metrics.jsonl up to now; looks at other items than these are passed over.
        feed: of the run.
        law: the time law as the run began with it: the levels stay where they are.
        steps: of the run; None for one by minutes.
        seconds: of the run; None for one by steps.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        feed: Feed,
        law: TimeLaw,
        weight: Weight,
        *,
        steps: int | None,
        seconds: float | None = None,
    ) -> None:
        self.feed, self.law, self.weight, self.steps, self.seconds = feed, law, weight, steps, seconds
        held_out, training = feed.dataset.held_out_indices, feed.indices
        named = np.concatenate([held_out, [-1], training]).astype("<i8").tobytes() + feed.dataset.fingerprint.encode()
        self.on = hashlib.sha256(named + b"private" * feed.is_private).hexdigest()[:8]
        self.rows: list[dict[str, Any]] = []
        self.curve = Curve()
        for row in rows:
            if row.get("on") == self.on:
                self.rows.append(dict(row))
            elif "loss" in row:
                self.curve.add(row["step"], math.nan if row["loss"] is None else row["loss"], row["lr"])
        self.rhythm = Rhythm.of(steps, feed.batch) if steps else None
        self._next = self.rhythm.after(self.rows[-1]["step"]) if self.rhythm and self.rows else FIRST
        self._items: tuple[_Items, _Items] | None = None
        self._spent = self._longest = 0.0

    @property
    def verdict(self) -> Verdict:
        """What the looks say by now; there must have been one."""
        return judge(looks_of(self.rows))

    @property
    def step(self) -> int:
        """Of the last look; 0 before the first."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def share(self) -> float:
        """Of the budget that was spent at the last look."""
        return float(self.rows[-1]["share"]) if self.rows else 0.0

    @property
    def stop(self) -> bool:
        """Whether to go on is a waste."""
        return bool(self.rows) and self.verdict.stop

    def picture(self) -> bytes:
        """progress.png."""
        return draw(self.curve.points(), self.rows, self.verdict.line)

    @property
    def improved(self) -> bool:
        """Whether the last look is the best so far."""
        return bool(self.rows[-1]["held_out"] <= min(row["held_out"] for row in self.rows))

    def due(self, step: int, share: float) -> bool:
        """Whether to look after `step`, `share` of the budget."""
        if step < self._next:
            return False
        if self.seconds and self._spent + self._longest > MOST_SHARE * self.seconds * (0.5 + share):
            return False  # dearer than was thought
        rhythm = self._rhythm(step, share)
        if not rhythm.pieces and not self.steps:
            self._next = 2 * step  # steps may become faster
        return rhythm.worthwhile(share)

    def look(self, step: int, share: float, denoiser: Denoiser, batch: int = BATCH) -> tuple[LevelLoss, dict[str, Any]]:
        """Measure the loss on held-out items (on training items where none is held out), and on training items beside them; in
        a private run on held-out items alone.

        Returns:
            it, and what else a row of metrics.jsonl says.

        Raises:
            DivergedError: weights that give no finite loss are nothing to keep.
        """
        began, rhythm = time.perf_counter(), self._rhythm(step, share)
        count = self.rows[0]["count"] if self.rows else rhythm.count
        if self._items is None:
            seen = self.feed.indices[: 0 if self.feed.is_private else None]
            self._items = self._some(self.feed.dataset.held_out_indices, count), self._some(seen, count)
        sides = [self._loss(items, denoiser, batch) if len(items.x0) else None for items in self._items]
        unseen, training = sides
        level = unseen or training
        assert level is not None
        if not all(math.isfinite(side.mean) for side in sides if side):
            raise DivergedError("the held-out loss is not finite", where=f"step {step}", help="lower optimizer.lr")
        more: dict[str, Any] = {}
        if training:
            more |= {"training": training.mean, "training_levels": training.losses}
        if training and unseen:
            gap, error = unseen.above(training)
            more |= {"gap": gap.tolist(), "gap_error": error.tolist()}
        more |= {"share": share, "count": count, "on": self.on}
        more["training_items"], more["held_out_items"] = (
            _rounded(side.items) if side else [] for side in (training, unseen)
        )
        row = {"step": step, "held_out": level.mean, "ratios": level.ratios, "levels": level.losses, **more}
        self.rows = [*(r for r in self.rows if r["step"] < step), row]
        row["verdict"] = more["verdict"] = self.verdict.state
        self._next = rhythm.after(step)
        self._longest = max(self._longest, time.perf_counter() - began)
        self._spent += time.perf_counter() - began
        return level, more

    def _rhythm(self, step: int, share: float) -> Rhythm:
        """That of a run of so many steps, as far as can be told now."""
        return self.rhythm or Rhythm.of(round(step / max(share, 1e-9)), self.feed.batch)

    def _some(self, rows: NDArray[np.intp], count: int) -> "_Items":
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(int)] if len(rows) else rows
        return _Items(*self.feed.items(chosen), draws=max(1, count // max(len(chosen), 1)))

    def _loss(self, items: "_Items", denoiser: Denoiser, batch: int) -> LevelLoss:
        x0, cond, draws, seed = items.x0, items.cond, items.draws, self.feed.seed
        return held_out_loss(denoiser, x0, cond, self.law, self.weight, draws=draws, seed=seed, batch=batch)


@dataclass(frozen=True, eq=False)
class _Items:
    """What is looked at: items in model space, their conditions, and how often each is."""

    x0: Tensor
    cond: Mapping[str, Tensor]
    draws: int


def _rounded(losses: Sequence[float]) -> list[float]:
    return [float(f"{loss:.6g}") for loss in losses]

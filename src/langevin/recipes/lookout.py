"""What comes of a look: a row, a line, from time to time a sheet of samples, progress.png; and at the end of a run the verdict."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from langevin.config import TrainConfig
from langevin.errors import MemoryShortError
from langevin.evaluation.noise_levels import BATCH, LevelLoss
from langevin.model import Model
from langevin.recipes.console import Console
from langevin.recipes.forecast import expected
from langevin.recipes.looks import Looks
from langevin.recipes.outcome import preview, save_picture
from langevin.recipes.rows import Rows
from langevin.store import write_file
from langevin.training.memory import shrinking

SHEETS = 8
"""So many times a run draws a preview, at most; a short one less often."""
SHEET_SECONDS, PICTURE_SECONDS = 5.0, 120.0
"""Between two previews of a run by minutes; between two drawings of progress.png."""
T = TypeVar("T")


class Lookout:
    """Looks, and tells.

    Args:
        config: of the run. Where its budget is a number of steps, previews do not depend on the clock.
    """

    def __init__(self, folder: Path, looks: Looks, console: Console, config: TrainConfig) -> None:
        self.folder, self.looks, self.console, self.config = folder, looks, console, config
        self._sheet_at = self._picture_at = time.perf_counter()

    def __call__(self, rows: Rows, step: int, share: float, model: Model) -> tuple[LevelLoss, Any]:
        """Measure the losses on fixed items. Returns them, and the sheet of samples where one was drawn."""
        before, sheet, now = self.looks.share, None, time.perf_counter()
        is_time = self.config.steps is not None or now - self._sheet_at > SHEET_SECONDS
        if is_time and int(share * SHEETS) > int(before * SHEETS) and share < 1:
            # before the row, which says that all of the look is done
            sheet, self._sheet_at = preview(model, self.console.say, small=True), now
            if sheet is not None:
                save_picture(sheet, self.folder / "previews" / f"step-{step:09d}.png")
        level, more = fitting(lambda batch: self.looks.look(step, share, model.denoiser, batch), self.console.say)
        rows.looked(step, level, **more)
        numbers = f"held-out {level.mean:.4f}" + (f"  training {more['training']:.4f}" if "training" in more else "")
        verdict = self.looks.verdict
        end = self._end() if verdict.state == "learning" else None
        if end:
            numbers += f"  at the end {end[0]:.4f} to {end[1]:.4f}"
        self.console.say(f"step {step:>7,}  {numbers}  {verdict.line}", verdict=verdict.state, end=end)
        if now - self._picture_at > PICTURE_SECONDS:
            self.draw()
            self._picture_at = now
        return level, sheet

    def _end(self) -> tuple[float, float] | None:
        """Between what the held-out loss is expected to lie at the end, where that can be told."""
        optimizer = self.config.optimizer
        if optimizer.decay != "cosine" or optimizer.hold:
            return None
        return expected([(row["share"], row["held_out"]) for row in self.looks.rows])

    def draw(self) -> None:
        """progress.png."""
        write_file(self.folder / "progress.png", self.looks.picture())


def fitting(loss: Callable[[int], T], say: Callable[[str], None]) -> T:
    """A held-out loss with the batch that fits into memory."""
    if (out := shrinking(loss, BATCH, "held-out loss", say)) is None:
        raise MemoryShortError("no memory to measure the loss of a single item")
    return out


def conclusion(looks: Looks, config: TrainConfig, share: float) -> Iterator[str]:
    """The verdict at the end of a run that spent this share of its budget, in lines."""
    verdict = looks.verdict
    yield f"verdict    {verdict.line}"
    if verdict.stop and config.stop_early and share < 1:
        left = (1 - share) * (config.minutes or config.steps or 0)
        unit = "min" if config.minutes else "steps"
        yield f"           ended early: {left:,.1f} {unit} were not needed (stop_early)".replace(".0 ", " ")
    yield f"           {verdict.advice}"

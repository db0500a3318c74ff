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
        by_steps: whether the run's budget is a number of steps: its previews then do not depend on the clock.
    """

    def __init__(self, folder: Path, looks: Looks, console: Console, by_steps: bool) -> None:
        self.folder, self.looks, self.console, self.by_steps = folder, looks, console, by_steps
        self._sheet_at = self._picture_at = time.perf_counter()

    def __call__(self, rows: Rows, step: int, share: float, model: Model) -> tuple[LevelLoss, Any]:
        """Measure the losses on fixed items. Returns them, and the sheet of samples where one was drawn."""
        before, sheet, now = self.looks.share, None, time.perf_counter()
        is_time = self.by_steps or now - self._sheet_at > SHEET_SECONDS
        if is_time and int(share * SHEETS) > int(before * SHEETS) and share < 1:
            # before the row, which says that all of the look is done
            sheet, self._sheet_at = preview(model, self.console.say, small=True), now
            if sheet is not None:
                save_picture(sheet, self.folder / "previews" / f"step-{step:09d}.png")
        level, more = fitting(lambda batch: self.looks.look(step, share, model.denoiser, batch), self.console.say)
        rows.looked(step, level, **more)
        numbers = f"held-out {level.mean:.4f}" + (f"  training {more['training']:.4f}" if "training" in more else "")
        self.console.say(f"step {step:>7,}  {numbers}  {self.looks.verdict.line}", verdict=more["verdict"])
        if now - self._picture_at > PICTURE_SECONDS:
            self.draw()
            self._picture_at = now
        return level, sheet

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

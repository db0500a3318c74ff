"""metrics.jsonl: a row a step and a row a look, in their order, each once however often the run was resumed.

What follows the wall clock stands under "clock" and nowhere else: the rest of a run by steps is the same in every run.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from langevin.evaluation.noise_levels import LevelLoss
from langevin.recipes.console import one_line
from langevin.store import write_file
from langevin.training import Metrics


class Rows:
    """The rows of a run, open to be added to.

    Args:
        step: steps that are done; the rows of later ones are forgotten, they will come again.
    """

    def __init__(self, path: Path, step: int) -> None:
        if path.is_file():
            kept = [line for line, row in read(path) if row["step"] <= step]
            write_file(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def stepped(self, metrics: Metrics, clock: Mapping[str, Any]) -> None:
        """A step was taken."""
        facts = metrics.facts()
        clock = {"elapsed": facts.pop("elapsed"), **clock}
        self._write({**facts, "clock": clock})

    def looked(self, step: int, level: LevelLoss, **more: Any) -> None:
        """The held-out loss was measured."""
        self._write({"step": step, "held_out": level.mean, "ratios": level.ratios, "levels": level.losses, **more})

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(one_line(dict(row)) + "\n")

    def flush(self) -> None:
        """Put all rows on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more rows."""
        self._file.close()

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines with what stands in them; without the one that was being written when a process was killed."""
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield line, row

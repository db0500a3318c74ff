"""`langevin checkpoints RUN`: which there are, how good, and whether each is what it was when it was written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langevin import store
from langevin.errors import RefusedError, UsageError
from langevin.recipes import folders
from langevin.recipes.signals import going_on
from langevin.training import checkpoint
from langevin.training.checkpoint import Saved


@dataclass(frozen=True)
class Found:
    """A checkpoint and what is wrong with it.

    Attributes:
        size: bytes of its files.
        wrong: "" where it is sound.
    """

    saved: Saved
    size: int
    wrong: str


def look(run: "str | Path") -> list[Found]:
    """The checkpoints of a run, newest first, each read and compared with its manifest. Nothing is changed.

    Raises:
        UsageError: no run, or one without any.
    """
    run = folders.found(Path(run), "config.yaml", "such run")
    if not (known := checkpoint.saved(run)):
        raise UsageError(
            "there are no checkpoints",
            where=str(run),
            help=f"none was written yet, or all were deleted: {going_on(run)}",
        )
    return [Found(one, _size(one.path), _wrong(one.path)) for one in known]


def table(found: Sequence[Found]) -> str:
    """A line each."""
    lowest = min((f.saved.held_out for f in found if f.saved.held_out is not None and not f.wrong), default=None)
    lines = [f"{'step':>12}  {'size':>10}  {'held-out':>9}"]
    for f in found:
        loss = "" if f.saved.held_out is None else f"{f.saved.held_out:.4f}"
        best = "  best" if loss and f.saved.held_out == lowest and not f.wrong else ""
        lines.append(f"{f.saved.step:>12,}  {f.size / 1e6:>7,.1f} MB  {loss:>9}  {f.wrong or 'sound'}{best}")
    return "\n".join(lines)


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir() if f.is_file())


def _wrong(folder: Path) -> str:
    try:
        store.verify(folder, checkpoint.PARTS)
        checkpoint.read_facts(folder)
    except RefusedError as error:
        return f"{error.what} ({Path(error.where).name})"
    return ""

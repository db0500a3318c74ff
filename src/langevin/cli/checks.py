"""Commands that look at what is there: data, checkpoints, this machine, the formulas."""

from pathlib import Path
from typing import Literal


def checkpoints(run: Path) -> None:
    """List a run's checkpoints: step, size, held-out loss, and whether each is sound; exit code 7 where one is not.

    Args:
        run: a run's folder.
    """
    from langevin.recipes.checkpoints import look, table

    found = look(run)
    print(table(found))
    if any(one.wrong for one in found):
        raise SystemExit(7)


def data_check(
    path: str,
    *,
    size: int | None = None,
    fit: Literal["crop", "pad", "skip"] = "crop",
    matte: str | None = None,
    frames: Literal["first", "all"] = "first",
    allow_rejects: float = 1.0,
    out: Path | None = None,
) -> None:
    """Say what is in a folder or file, what is wrong with it, and what training would do.

    Args:
        path: as for `langevin train`.
        size: side of the pictures; chosen from the data.
        fit: how pictures of another shape are made to fit.
        matte: a colour to lay under transparent pictures.
        frames: which frames of animations.
        allow_rejects: share of unusable files that is let pass here.
        out: where the contact sheet goes; a new name in this folder where it is not given.
    """
    from langevin.recipes.look import look

    look(path, out=out, say=print, size=size, fit=fit, matte=matte, frames=frames, allow_rejects=allow_rejects)


def doctor() -> None:
    """Look at Python, torch, the processor, memory, disk and extras, and say what to do about each."""
    from langevin.recipes.doctor import diagnose, table

    findings = diagnose()
    print(table(findings))


def check() -> None:
    """Compare every formula with its closed form on this machine; about half a minute."""
    from langevin.recipes.check import run_checks, table

    checks = run_checks()
    print(table(checks))
    if not all(one.ok for one in checks):
        raise SystemExit(1)

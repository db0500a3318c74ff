"""Folders of runs and searches: how they are named, made and found. NAME-1, NAME-2, ...: nothing is ever overwritten."""

import re
from pathlib import Path

from langevin.errors import UsageError, nearest


def name_for(path: str) -> str:
    """A name for what is made of the data at `path`."""
    stem, parent = (
        re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-._")[:60]
        for part in (Path(path).name.split(".")[0], Path(path).parent.name)
    )
    return (parent if stem in ("train", "data", "images") else "") or stem or "run"


def checked(name: str) -> str:
    """The name that a person chose. Raises UsageError where no folder should be called so."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"`{name}` cannot name a run", help="letters, digits, dots, dashes and underscores")
    return name


def new(parent: Path, name: str) -> Path:
    """Make `parent`/NAME-1, or the next number that is free; two processes never get the same.

    Raises UsageError where `parent` is something else.
    """
    if (parent.exists() or parent.is_symlink()) and not parent.is_dir():
        raise UsageError("runs need a folder here, and there is something else", where=str(parent), help="move it away")
    parent.mkdir(parents=True, exist_ok=True)
    k = 1
    while True:
        try:
            (parent / f"{name}-{k}").mkdir()
            return parent / f"{name}-{k}"
        except FileExistsError:
            k += 1


def found(folder: Path, mark: str, what: str) -> Path:
    """The folder, where a file `mark` in it says that it is what is looked for. Raises UsageError, naming the nearest one."""
    if not (folder / mark).is_file():
        others = [p.name for p in folder.parent.glob("*") if (p / mark).is_file()]
        help = nearest(folder.name, others) if others else "give the folder that it made, NAME-1 or the like"
        raise UsageError(f"there is no {what}", where=str(folder), help=help)
    return folder

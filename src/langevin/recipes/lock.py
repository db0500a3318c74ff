"""One process a run: the second is refused, and a lock that a dead process left behind is not obeyed."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langevin.errors import UsageError


def _holder(path: Path) -> tuple[int, str] | None:
    try:
        found = json.loads(path.read_text())
        return int(found["pid"]), str(found["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold `run` inside the block. Raises UsageError naming the process and host that has it."""
    path = run / "lock.json"
    mine = json.dumps({"pid": os.getpid(), "host": platform.node()})
    for _ in range(2):
        try:
            with path.open("x") as f:
                f.write(mine)
            break
        except FileExistsError:
            holder = _holder(path)
            if holder is not None and (holder[1] != platform.node() or _alive(holder[0])):
                raise UsageError(
                    f"process {holder[0]} on {holder[1]} is working on this run",
                    where=str(run),
                    help=f"wait for it; if it is gone, delete {path}",
                ) from None
            path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)

"""One process a run: the second is refused. The system's own lock, which ends with the process that holds it."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from langevin.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has no such lock; two processes on one run are not noticed there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold `run` inside the block. Raises UsageError naming the process and host that has it.

    What stands in lock.json is for the message alone; a file that a dead process left behind locks nothing.
    """
    path = run / "lock.json"
    with path.open("a+", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = {}
                with suppress(ValueError):
                    file.seek(0)
                    holder = json.loads(file.read())
                who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
                raise UsageError(
                    f"{who} is working on this run", where=str(run), help="wait until it has ended"
                ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node()}))
        file.flush()
        yield
        file.truncate(0)

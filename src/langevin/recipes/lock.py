"""One process a run: the second is refused. The system's own lock, which ends with the process that holds it.

What stands in lock.json is for messages, and a file that a dead process left behind locks nothing. Only where the file
system has no locks (some network ones) it decides itself, and that is said aloud.
"""

import errno
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from langevin.errors import DiskError, UsageError
from langevin.store import is_alive

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def lock(run: Path, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Hold `run` inside the block; `say` is told of a process that died with it and of a system without locks.

    Raises:
        UsageError: naming the process and host that has it. DiskError: the folder cannot be written to.
    """
    path = run / "lock.json"
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise DiskError(
            f"the run cannot be written to: {error.strerror}", where=str(path), help="see who owns it"
        ) from None
    with file:
        held, former, help = _held_elsewhere(file), _former(file), "wait until it has ended"
        if held is None:
            held, help = bool(former) and not _is_gone(former), f"if it has ended, delete {path}"
            say(f"note       no locks on this system or disk: another process is known by {path} alone")
        who = f"process {former.get('pid', '?')} on {former.get('host', '?')}"
        if held:
            raise UsageError(f"{who} is working on this run", where=str(run), help=help)
        if former:
            say(f"note       {who} had this run and ended without leaving it: going on")
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node()}))
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _held_elsewhere(file: TextIO) -> bool | None:
    """Whether another process has the lock; if not, it is ours now. None: there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in _HELD else None
    return False


def _former(file: TextIO) -> dict[str, Any]:
    """Who wrote the file and did not empty it again; {} where nobody did."""
    file.seek(0)
    with suppress(ValueError):
        found = json.loads(file.read())
        return found if isinstance(found, dict) else {}
    return {}


def _is_gone(former: dict[str, Any]) -> bool:
    """Whether the process that wrote this has surely ended: only of this machine's own is that known."""
    pid = former.get("pid")
    return former.get("host") == platform.node() and isinstance(pid, int) and not is_alive(pid)


@contextmanager
def waiting(folder: Path, seconds: float = 60.0) -> Iterator[None]:
    """Hold `folder` inside the block, as soon as no other process does. Raises UsageError after so many seconds."""
    until = time.monotonic() + seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock(folder))
                break
            except UsageError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield


def is_held(run: Path) -> bool:
    """Whether a process holds `run`."""
    if not run.is_dir():
        return False
    try:
        with lock(run):
            return False
    except UsageError:
        return True

"""What a disk is asked to keep, and whether it does.

A run rests on three promises of its file system: a rename puts a folder in its place in one act, a flush returns when the
bytes are on the disk, a lock keeps a second process out. Where the first is not kept a checkpoint's manifest, written last,
still tells what is whole.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from langevin.errors import DiskError, LangevinError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}
"""What flushing a folder gives where a file system has no such thing."""


def flush(path: Path) -> None:
    """Put a file or folder on the disk."""
    try:
        _fsync(path)
    except OSError as error:
        if error.errno not in _NO_FLUSH or not path.is_dir():
            raise


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    **dict.fromkeys(_FULL, "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "see who may write there"),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "see whether the disk is sound",
}
"""What of the system's errors is surely the disk's doing and no bug, and what to do about it."""


@contextmanager
def disk_errors(where: Path, size: int = 0) -> Iterator[None]:
    """Tell what the system refuses to write or to read inside the block as DiskError.

    Args:
        where: what is written.
        size: bytes that are needed, where it is known.
    """
    try:
        yield
    except (LangevinError, ConnectionError, TimeoutError, ChildProcessError):
        raise
    except OSError as error:
        if error.errno is None:  # of a library, about something else
            raise
        full = error.errno in _FULL
        needed = f"{_mb(size)} needed, " if size else ""
        free = f"{needed}{_mb(_free(where))} free"
        name = where if ".tmp-" in str(error.filename) else error.filename or where
        raise DiskError(
            f"the disk is full: {free}" if full else f"the disk refuses: {error.strerror}",
            where=str(name),
            help=f"{REMEDIES.get(error.errno, free)}; what was saved before is intact",
        ) from error


def broken_promises(folder: Path) -> list[str]:
    """Try renaming, flushing and locking in `folder`; what does not work there, in words. Leaves nothing behind."""
    trial, found = folder / f".trial-{os.getpid()}", []
    new = trial / "new"
    with disk_errors(folder):
        for left in folder.glob(".trial-*"):  # of a process that could not remove it
            shutil.rmtree(left, ignore_errors=True)
        (trial / "old").mkdir(parents=True)
        try:
            (trial / "old" / "file").write_bytes(b"whole")
            for what, path in (("files", trial / "old" / "file"), ("folders", trial / "old")):
                try:
                    _fsync(path)
                except OSError as error:
                    found.append(f"{what} cannot be flushed ({error.strerror}): a power cut may take what was saved")
            try:
                (trial / "old").rename(new)
                sound = (new / "file").read_bytes() == b"whole" and not (trial / "old").exists()
            except OSError:
                sound = False
            if not sound:
                found.append(
                    "a folder is not renamed in one act: checkpoints are known to be whole by their manifest alone"
                )
            if fcntl is not None:
                with (trial / "lock").open("w") as one, (trial / "lock").open("w") as other:
                    try:
                        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        try:
                            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                            found.append("locks keep nobody out: see that no second process works on this run")
                        except OSError:
                            pass
                    except OSError as error:
                        found.append(
                            f"there are no locks ({error.strerror}): see that no second process works on this run"
                        )
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    return found


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _free(path: Path) -> int:
    """Bytes free where `path` is or will be; 0 where that cannot be told."""
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}".removesuffix(".0") + " MB" if size >= 1e6 else f"{size / 1e6:.3f} MB"


def need_space(folder: Path, size: int) -> None:
    """Raise DiskError where `folder` has less room than `size` bytes and a megabyte for all that comes with them."""
    free, needed = _free(folder), size + (1 << 20)
    if free < needed:
        raise DiskError(
            f"the disk is full: {_mb(needed)} needed, {_mb(free)} free",
            where=str(folder),
            help="free some space; what was saved before is intact",
        )

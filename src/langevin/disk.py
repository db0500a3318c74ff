"""What a disk is asked to keep, and whether it does."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from langevin.errors import DiskError, LangevinError

_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}
"""What flushing a folder gives where a file system has no such thing."""


def flush(path: Path) -> None:
    """Put a file or folder on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FLUSH or not path.is_dir():
            raise
    finally:
        os.close(fd)


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
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        needed = f"{_mb(size)} needed, " if size else ""
        free = f"{needed}{_mb(_free(where))} free"
        raise DiskError(
            f"the disk is full: {free}" if full else f"the disk refuses: {error.strerror}",
            where=str(error.filename or where),
            help="free some space; what was saved before is intact"
            if full
            else f"{free}; what was saved before is intact",
        ) from error


def _free(path: Path) -> int:
    """Bytes free where `path` is or will be; 0 where that cannot be told."""
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e6:.3f} MB"


def need_space(folder: Path, size: int) -> None:
    """Raise DiskError where `folder` has less room than `size` bytes and a little more."""
    free = _free(folder)
    if free < size + (1 << 20):
        raise DiskError(
            f"the disk is full: {_mb(size)} needed, {_mb(free)} free",
            where=str(folder),
            help="free some space; what was saved before is intact",
        )

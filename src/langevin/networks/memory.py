"""Keep freed memory in the process.

Training frees and takes the same large blocks at every step. glibc gives blocks over 32 MB back to the system at once
and has to fault every page in again, which costs more than the arithmetic of an activation. With its thresholds raised
the blocks stay, at the price of a process that does not shrink.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # malloc.h


def keep_memory() -> bool:
    """Ask glibc to keep what is freed, for the rest of the process. False where there is no glibc; never raises."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_ARENA_MAX, 1)])

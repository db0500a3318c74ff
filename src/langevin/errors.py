"""What a user meets when something is wrong: what, where, what to do; and the exit code that says which kind it was.

0 ok, 1 bug, 2 usage, 3 data, 4 diverged, 5 memory, 6 disk, 7 refused (unsafe file), 75 pre-empted and saved,
130 interrupted.
"""

import difflib
from collections.abc import Iterable


class LangevinError(Exception):
    """A mistake that a user can mend. `str(error)` is the message; no traceback is shown for it.

    Args:
        what: what is wrong, in one sentence.
        where: file:line, setting or row; empty where the message says it.
        help: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", help: str = "") -> None:
        self.what, self.where, self.help = what, where, help
        super().__init__("   ".join(part for part in (what, where, f"help: {help}" if help else "") if part))


class UsageError(LangevinError, ValueError):
    """A setting, argument or name that cannot be."""

    exit_code = 2


class DataError(LangevinError, ValueError):
    """The data cannot be used as they are."""

    exit_code = 3


class DivergedError(LangevinError, ArithmeticError):
    """Training produced numbers that are not finite, more often than can be mended."""

    exit_code = 4


class MemoryShortError(LangevinError, MemoryError):
    """Not enough memory."""

    exit_code = 5


class DiskError(LangevinError, OSError):
    """Not enough disk, or a disk that refuses."""

    exit_code = 6


class RefusedError(LangevinError, ValueError):
    """A file that is unsafe, damaged or of a format that is not read here. Nothing in it was executed."""

    exit_code = 7


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest of the known names, else the list of them."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (
        f"did you mean `{close[0]}`?"
        if close
        else "known: " + ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    )

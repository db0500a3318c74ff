"""Asked to stop: finish what is under way, save, leave. Asked twice: leave at once.

Nothing is torn apart by a signal. It sets a flag, and every loop looks at the flag: the step of a training run, the file
that is read, each evaluation of a network (`at_each_evaluation`). Who finds it set saves what is worth it and leaves.

A scheduler that ends a job sends SIGTERM to all its processes, and a launcher among them hands its own on to those it has
started: what comes twice so is one request.
"""

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from langevin.errors import LangevinError

if TYPE_CHECKING:
    from torch import nn

TOGETHER = 5.0
"""For so many seconds after the first SIGTERM another one is the same request."""
_KINDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_SAID = b"\nasked to stop: finishing what is under way and saving; asked again, it stops at once\n"


class StoppedError(LangevinError):
    """Left because that was asked for; `exit_code` is 75 or 130."""

    def __init__(self, what: str, *, exit_code: int, help: str) -> None:
        super().__init__(what, help=help)
        self.exit_code = exit_code


class StopRequest:
    """Whether somebody asked, and how: the exit code is 130 for Ctrl-C and 75 for a pre-empted job."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def asked(self) -> int:
        """The signal that this process got, or 0."""
        return self.signal or 0

    def heard(self, signal: int) -> None:
        """Another process of the run got it."""
        self.signal = self.signal or signal

    @property
    def exit_code(self) -> int:
        """130 or 75."""
        return 130 if self.signal == signal.SIGINT else 75

    def heed(self, what: str, *, help: str = "the same command does it again") -> None:
        """Raise StoppedError where that was asked for."""
        if self:
            raise StoppedError(what, exit_code=self.exit_code, help=help)


def going_on(run: Path) -> str:
    """The command that goes on with a run."""
    return f"langevin train --resume {shlex.quote(str(run))}"


def at_each_evaluation(module: "nn.Module", heed: Callable[[], None]) -> None:
    """Call `heed` before each evaluation of a network, whatever loop makes them; what it raises ends that loop."""
    module.register_forward_pre_hook(lambda *_: heed())


@contextmanager
def stop_requests(*, outlive_terminal: bool = False) -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGUSR1 inside the block; after the first all act as they do outside, SIGTERM `TOGETHER` later.

    A signal that was ignored when the block began stays so: that is how jobs are started in the background.

    Args:
        outlive_terminal: whether the work goes on where its terminal is closed (SIGHUP).
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    kinds = [kind for kind in _KINDS if signal.getsignal(kind) is not signal.SIG_IGN]
    former = {kind: signal.getsignal(kind) or signal.SIG_DFL for kind in kinds}

    def restore() -> None:
        for kind, handler in former.items():
            signal.signal(kind, handler)

    first: float | None = None

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is not None:
            if time.monotonic() - first > TOGETHER:
                restore()
                signal.raise_signal(number)
            return
        request.signal, first = number, time.monotonic()
        restore()
        if number == signal.SIGTERM:
            signal.signal(number, ask)
        with suppress(OSError):  # not `print`: it may be what was interrupted
            os.write(2, _SAID)

    for kind in kinds:
        signal.signal(kind, ask)
    if outlive_terminal and hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        former[signal.SIGHUP] = signal.SIG_DFL
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    try:
        yield request
    finally:
        restore()

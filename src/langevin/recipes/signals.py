"""Asked to stop: finish the step, save, leave. Asked twice: leave at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked, and how: the exit code is 130 for Ctrl-C and 75 for a pre-empted job."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 or 75."""
        return 130 if self.signal == signal.SIGINT else 75


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGUSR1 inside the block; the second time they act as they do outside."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    kinds = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    former = {kind: signal.getsignal(kind) for kind in kinds}

    def ask(number: int, frame: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, former[signal.Signals(number)] or signal.SIG_DFL)

    for kind in kinds:
        signal.signal(kind, ask)
    try:
        yield request
    finally:
        for kind, handler in former.items():
            signal.signal(kind, handler)

"""What a run says while it works: a progress bar in a terminal, plain lines without one, JSON lines where asked."""

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO


def one_line(facts: dict[str, Any]) -> str:
    """One line of JSON, with null for numbers that are not finite."""
    return json.dumps(_finite(facts), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Console:
    """Says things; keeps a copy of all lines in a log file where one is given.

    A reader or a terminal that goes away, or a log that cannot be written, ends nothing: the rest is not said, or not kept.

    Args:
        mode: "auto" (bar in a terminal, lines elsewhere), "lines", "json", or "quiet".
        interval: seconds between two lines of progress.
    """

    def __init__(self, mode: str = "auto", *, interval: float = 10.0, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.mode = ("bar" if self.stream.isatty() else "lines") if mode == "auto" else mode
        self.interval, self._log = interval, None
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done()
        if self._log is not None:
            with suppress(OSError):
                self._log.close()
            self._log = None

    def keep_log(self, path: Path) -> None:
        """From now on, a copy of all lines at the end of this file, as long as it takes them."""
        try:
            self._log = path.open("a", encoding="utf-8", errors="replace")
        except OSError as error:
            self.say(f"note       {path} takes no lines ({error.strerror}): going on without")

    def say(self, text: str, **facts: Any) -> None:
        """A line for a person, or `facts` as one JSON object a line."""
        if self._log is not None:
            try:
                self._log.write(text + "\n")
                self._log.flush()
            except OSError as error:
                with suppress(OSError):  # what it still holds cannot be written either
                    self._log.close()
                self._log = None
                self.say(f"note       the log takes no more lines ({error.strerror}): going on without")
        if self.mode == "json":
            self._print(one_line({"say": text, **facts}))
        elif self._bar is not None:
            with self._while_it_is_read():
                self._bar.console.print(text, markup=False, highlight=False)
        elif self.mode != "quiet":
            self._print(text)

    def progress(self, what: str, share: float, text: str = "", **facts: Any) -> None:
        """How far the work named `what` is, 0 to 1."""
        now = time.monotonic()
        if self.mode == "bar":
            self._show(what, share, text)
        elif now - self._last >= self.interval:
            self._last = now
            if self.mode == "json":
                self._print(one_line({"progress": round(share, 4), "of": what, **facts}))
            elif self.mode == "lines":
                self._print(f"{what} {share:4.0%}  {text}".rstrip())

    def _print(self, line: str) -> None:
        with self._while_it_is_read():
            print(line, file=self.stream, flush=True)

    @contextmanager
    def _while_it_is_read(self) -> Iterator[None]:
        """Says no more once the reader or the terminal has gone."""
        try:
            yield
        except (OSError, ValueError, SystemExit):  # rich leaves the program at a broken pipe
            self.mode, bar, self._bar = "quiet", self._bar, None
            if bar is not None:
                with suppress(OSError, ValueError, SystemExit):
                    bar.stop()
            if self.stream is sys.stdout:  # what waits to be written would fail again when Python ends
                with suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def _show(self, what: str, share: float, text: str) -> None:
        with self._while_it_is_read():
            if self._bar is None or what != self._what:
                from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

                self.done()
                columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
                self._bar = Progress(*columns, TextColumn("{task.fields[text]}"), TimeRemainingColumn())
                self._bar.start()
                self._task, self._what = self._bar.add_task(what, total=1.0, text=text), what
            self._bar.update(self._task, completed=share, text=text)

    def done(self) -> None:
        """The work that showed progress is over."""
        if self._bar is not None:
            with self._while_it_is_read():
                self._bar.stop()
            self._bar = None

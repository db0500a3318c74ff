"""What a run says while it works: a progress bar in a terminal, plain lines without one, JSON lines where asked."""

import json
import math
import sys
import time
from types import TracebackType
from typing import Any, Self, TextIO


def one_line(facts: dict[str, Any]) -> str:
    """One line of JSON, with null for numbers that are not finite."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}
    return json.dumps(clean, ensure_ascii=False, allow_nan=False)


class Console:
    """Says things; keeps a copy of all lines in a log file where one is given.

    Args:
        mode: "auto" (bar in a terminal, lines elsewhere), "lines", "json", or "quiet".
        interval: seconds between two lines of progress.
    """

    def __init__(self, mode: str = "auto", *, interval: float = 10.0, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.mode = ("bar" if self.stream.isatty() else "lines") if mode == "auto" else mode
        self.interval, self.log = interval, None
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
        if self.log is not None:
            self.log.close()
            self.log = None

    def say(self, text: str, **facts: Any) -> None:
        """A line for a person, or `facts` as one JSON object a line."""
        if self.log is not None:
            self.log.write(text + "\n")
            self.log.flush()
        if self.mode == "json":
            self._print(one_line({"say": text, **facts}))
        elif self._bar is not None:
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
        try:
            print(line, file=self.stream, flush=True)
        except BrokenPipeError:  # whoever read along has left; the work goes on
            self.mode = "quiet"

    def _show(self, what: str, share: float, text: str) -> None:
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
            self._bar.stop()
            self._bar = None

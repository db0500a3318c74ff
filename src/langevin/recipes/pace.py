"""How fast a run goes and what memory it takes: figures of the machine, never of the run."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

WINDOW = 5.0
"""Seconds over which the rate is taken."""
MEMORY_SECONDS = 1.0
"""Between two looks at the memory."""
_STATM = Path("/proc/self/statm")


class Pace:
    """Images a second over the last seconds, and memory now.

    Args:
        clock: gives seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._total = 0
        self._memory: dict[str, float] = {}
        self._measured = -MEMORY_SECONDS

    def __call__(self, samples: int) -> dict[str, float]:
        """After so many more samples: {"images_per_s", "rss"} and on a GPU {"cuda_peak"}, the memory in bytes."""
        now = self._clock()
        self._total += samples
        self._seen.append((now, self._total))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW:
            self._seen.popleft()
        (then, before), taken = self._seen[0], now - self._measured
        if taken >= MEMORY_SECONDS or not self._memory:
            self._memory, self._measured = memory(), now
        return {"images_per_s": round((self._total - before) / max(now - then, 1e-9), 1), **self._memory}

    def pause(self) -> None:
        """What was done until now was no training: the time it took counts for nothing."""
        self._seen = deque([(self._clock(), self._total)])


def memory() -> dict[str, float]:
    """Bytes of memory that this process holds, {"rss"}, and the most that its tensors took on a GPU, {"cuda_peak"}."""
    found = {
        "rss": _resident(),
        "cuda_peak": torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def _resident() -> int | None:
    """What is held now; without /proc the most that was ever held; None where neither is known."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        if resource is None:
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def words(clock: Mapping[str, float]) -> str:
    """`1,234 items/s  812 MB`: the GPU's memory in the place of the process's where there is one."""
    taken = clock.get("cuda_peak", clock.get("rss"))
    return f"{clock['images_per_s']:,.0f} items/s" + (f"  {taken / 1e6:,.0f} MB" if taken is not None else "")

"""Kills runs at random moments: imports once, forks a child for each sitting, and says on stdout what it saw.

python -m tests.faults.nursery DATA RUNS COUNT SEED
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from langevin.training import checkpoint
from tests.faults import tiny


def sitting(data: Path, runs: Path, seconds: float | None) -> int:
    """Let a child begin or go on, and kill it after so many seconds; what it ended with, 0 or -9."""
    pid = os.fork()
    if pid == 0:
        try:
            tiny.begin_or_go_on(data, runs)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def newest(runs: Path) -> int:
    """The step of the newest checkpoint that is whole, 0 where there is none; nothing is changed."""
    every = (int(f.name[5:]) for run in runs.glob("tiny-*") for f in checkpoint.folders(run) if checkpoint.is_sound(f))
    return max(every, default=0)


def main(data: Path, runs: Path, count: int, seed: int) -> None:
    """Kill `count` sittings; whenever a run has come to its end, say what it ended as, and begin another."""
    torch.set_num_threads(1)
    moments, seen = random.Random(seed), {"kills": 0, "during": 0, "leavings": 0, "lost": 0, "ends": 0}
    sitting(data, runs, None)
    expected = tiny.outcome(runs / "tiny-1")
    shutil.rmtree(runs)
    started = time.perf_counter()
    sitting(data, runs, None)
    whole = time.perf_counter() - started
    shutil.rmtree(runs)
    wrong: list[str] = []
    while seen["kills"] < count:
        before = newest(runs)
        code = sitting(data, runs, moments.uniform(0.02, whole))
        seen["kills"] += 1
        seen["during"] += code == -9
        seen["leavings"] += bool(list(runs.rglob(".tmp-*")))
        seen["lost"] += newest(runs) < before
        if code not in (0, -9):
            wrong.append(f"kill {seen['kills']}: exit code {code}")
        if code == 0 or seen["kills"] == count:
            if (code := sitting(data, runs, None)) or tiny.outcome(
                next(runs.glob("tiny-*/figures.json")).parent
            ) != expected:
                wrong.append(f"after kill {seen['kills']}: exit code {code}, or other bits")
            seen["ends"] += 1
            shutil.rmtree(runs)
    print(json.dumps({**seen, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

"""Started again by torchrun (--max-restarts): the same command goes on with the run that the former attempt had begun."""

import os
import platform
from pathlib import Path

_FILE = "launch.txt"


def identity() -> str:
    """What all attempts of one torchrun have in common, and no other; "" without torchrun."""
    run = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"{platform.node()}-{os.getppid()}" if run == "none" else run


def remember(run: Path) -> None:
    """Write into a new run's folder which launch has made it."""
    if identity():
        (run / _FILE).write_text(identity(), "utf-8")


def is_restart() -> bool:
    """Whether an attempt of this launch has failed before."""
    return bool(identity()) and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def interrupted(runs: Path, name: str) -> Path | None:
    """The run that a former attempt of this launch has begun; None where it had not come so far."""
    found = [p.parent for p in runs.glob(f"{name}-*/{_FILE}") if p.read_text("utf-8") == identity()]
    begun = [p for p in found if (p / "config.yaml").is_file() and not (p / "figures.json").is_file()]
    return max(begun, key=lambda p: (p / _FILE).stat().st_mtime_ns, default=None)

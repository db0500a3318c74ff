"""How many cores and how much memory this process may use: the machine's, less what a control group takes away.

A container or a batch system gives a process a part of the machine; `os.cpu_count()` and the memory that the system
reports do not know that. Both versions of Linux's control groups are read, every ancestor of our own group too, since a
limit anywhere above holds here. Elsewhere the machine's own figures stand.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Bytes: what this process may use at all, and what is free of it now."""

    total: int
    free: int


def _number(path: Path) -> int | None:
    """The integer in a control file; None where there is no file or it says `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of our control group and its ancestors that have that controller, in either version."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controllers and controller)
        group = mount / path.lstrip("/")
        while group != mount and mount in group.parents:
            yield group
            group = group.parent
        yield mount


def cores(root: Path = Path("/")) -> float:
    """Cores that this process may use: those it may be scheduled on, or the quota of its group where that is less."""
    limits = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    for group in _groups("cpu", root):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        try:  # version 2: "quota period" or "max period"
            first, second = (group / "cpu.max").read_text().split()
            quota, period = (None if first == "max" else int(first)), int(second)
        except (OSError, ValueError):
            pass
        if quota and period and quota > 0:  # version 1 writes -1 for no limit
            limits.append(quota / period)
    return min(limits)


def memory(root: Path = Path("/")) -> Memory | None:
    """Memory that this process may use, or None where the system does not say."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        facts = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        total, free = facts["MemTotal"], facts["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return None
    for group in _groups("memory", root):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(group / limit_name), _number(group / used_name)
            if limit is not None and limit < total:
                cached = _reclaimable(group)
                total, free = limit, min(free, limit - max(0, (used or 0) - cached))
    return Memory(total, max(0, free))


def _reclaimable(group: Path) -> int:
    """Bytes of file cache that the group gives back when it needs them; they count as used, but are free to us."""
    try:
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(facts.get("total_inactive_file", facts.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has products of bfloat16; where it has none they are a hundred times slower than float32."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return bool(set(flags.split()) & {"avx512_bf16", "amx_bf16", "bf16"})

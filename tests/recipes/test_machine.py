"""Cores and memory under control groups: file trees as a kernel would show them, with the answers that follow."""

import os
from pathlib import Path

import pytest

from langevin.recipes.machine import cores, memory

GIB = 2**30
MEMINFO = f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {40 * GIB // 1024} kB\n"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """kernel({path: text}) -> a root folder with these files; sixteen cores to be scheduled on."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)

    def write(files: dict[str, str]) -> Path:
        for name, text in {"proc/meminfo": MEMINFO, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_without_groups_the_machine_counts(kernel):
    root = kernel({})
    assert cores(root) == 16
    found = memory(root)
    assert (found.total, found.free) == (64 * GIB, 40 * GIB)


def test_version_2_takes_the_tightest_limit_of_all_ancestors(kernel):
    root = kernel(
        {
            "proc/self/cgroup": "0::/slice/job\n",
            "sys/fs/cgroup/slice/cpu.max": "250000 100000\n",
            "sys/fs/cgroup/slice/job/cpu.max": "max 100000\n",
            "sys/fs/cgroup/slice/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/slice/memory.current": f"{5 * GIB}\n",
            "sys/fs/cgroup/slice/memory.stat": f"anon {4 * GIB}\ninactive_file {GIB}\n",
            "sys/fs/cgroup/slice/job/memory.max": "max\n",
        }
    )
    assert cores(root) == 2.5
    found = memory(root)
    assert (found.total, found.free) == (8 * GIB, 4 * GIB)


def test_version_1_reads_its_own_names(kernel):
    root = kernel(
        {
            "proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
    )
    assert cores(root) == 1.5
    found = memory(root)
    assert (found.total, found.free) == (2 * GIB, GIB)


def test_a_limit_above_the_machine_is_none(kernel):
    root = kernel({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{100 * GIB}\n"})
    assert memory(root).total == 64 * GIB


def test_what_a_system_does_not_say_is_unknown(tmp_path):
    assert memory(tmp_path) is None

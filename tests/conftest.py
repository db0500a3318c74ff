"""What many tests need: pictures to learn from, as many threads as before, no cache of the user's."""

import os
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

from tests.models import digits_like


def pytest_xdist_auto_num_workers() -> int:
    """A process a core, four at most: each has torch in memory."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder is a fresh one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 pictures of two kinds, in a file."""
    path = tmp_path_factory.mktemp("set") / "set.npz"
    images, labels = digits_like(130)
    np.savez(path, images=images, labels=labels)
    return path

"""Only kernels that give the same bits every time; one that has no such form is named."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from langevin.errors import UsageError

_NO_FORM = re.compile(r"(\S+) does not have a deterministic implementation")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside the block torch uses deterministic kernels alone, where that is wanted; outside everything is as it was.

    Raises:
        UsageError: naming the operation that has no deterministic kernel on this device.
    """
    if not wanted:
        yield
        return
    # cuBLAS reads it when it is first used
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills: Any = torch.utils.deterministic
    filled, tried = fills.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        fills.fill_uninitialized_memory = False  # nothing is read that was not written
        torch.backends.cudnn.benchmark = False
        yield
    except RuntimeError as error:
        if found := _NO_FORM.search(str(error)):
            raise UsageError(
                f"`{found[1]}` has no deterministic kernel",
                where="deterministic: true",
                help="leave `deterministic` out, or take a network that does without it",
            ) from error
        raise
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        fills.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = tried

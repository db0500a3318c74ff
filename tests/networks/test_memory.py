"""Freed memory stays: taking and freeing the same block again faults no page in."""

import platform
import subprocess
import sys

import pytest

TAKE_AND_FREE = """
import ctypes, resource, sys
from langevin.networks import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def once(n=64 << 20):
    block = libc.malloc(n); libc.memset(block, 1, n); libc.free(block)
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own thresholds")
def test_kept_memory_is_not_faulted_in_again():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", TAKE_AND_FREE, how], capture_output=True, check=True).stdout)
        for how in ("keep", "plain")
    }
    assert faults["plain"] >= 4  # one a block at least, even with huge pages
    assert faults["keep"] < faults["plain"] / 4

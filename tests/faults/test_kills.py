"""SIGKILL at random moments: the next sitting goes on from the last checkpoint, and the run ends with the same bits."""

import json
import os
import subprocess
import sys

import pytest

from tests.faults import tiny

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_killed_at_random_moments(tmp_path, count):
    arguments = [str(tiny.pictures(tmp_path)), str(tmp_path / "runs"), str(count), "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "tests.faults.nursery", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    print(seen)
    assert seen["wrong"] == [] and seen["lost"] == 0, done.stderr
    assert seen["kills"] == count and seen["during"] > count // 2

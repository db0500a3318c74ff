"""Whatever call of a run to the disk fails: it ends with exit code 6 or goes on, and resumed it ends with the same bits."""

import errno
import shutil
from pathlib import Path

import pytest

from langevin import store
from langevin.errors import LangevinError
from langevin.training import checkpoint
from tests.faults import tiny
from tests.faults.failing import FailingDisk


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(data, what an undisturbed run ends as, its calls)."""
    folder = tmp_path_factory.mktemp("whole")
    data = tiny.pictures(folder)
    run = tiny.begin(data, folder / "runs")
    with FailingDisk(folder / "counted") as disk:
        tiny.begin(data, folder / "counted")
    assert tiny.outcome(folder / "counted/tiny-1") == tiny.outcome(run)
    return data, tiny.outcome(run), disk.calls


def _break_and_mend(whole, runs: Path, k: int, error: int, **how: bool) -> int | None:
    """Let call k fail, then resume without faults; the exit code of the first sitting, None where it came to its end."""
    data, expected, _ = whole
    code = None
    with FailingDisk(runs, k, error, **how) as disk:
        try:
            tiny.begin(data, runs)
        except LangevinError as failed:
            code = failed.exit_code
    assert len(disk.calls) >= k, "the call was not reached"
    for newest in (found for run in runs.glob("tiny-*") for found in checkpoint.folders(run)[:1]):
        store.verify(newest, checkpoint.PARTS)
    with FailingDisk(runs):
        run = tiny.begin_or_go_on(data, runs)
    assert tiny.outcome(run) == expected
    assert not list(run.rglob(".tmp-*"))  # a folder that never became a run may keep its leavings
    shutil.rmtree(runs)
    return code


def _kinds(calls: list[str]) -> list[int]:
    """The first call of each kind on each kind of file, from 1 on."""
    seen: dict[str, int] = {}
    for k, call in enumerate(calls, 1):
        what, name = call.split(" ", 1)
        seen.setdefault(f"{what} {name.split('-', 3)[-1] if name.startswith('.tmp') else name}", k)
    return sorted(seen.values())


def test_some_failing_calls(whole, tmp_path):
    calls = whole[2]
    some = [k for k in _kinds(calls) if "step-000000002" in calls[k - 1]]
    written = next(k for k, call in enumerate(calls, 1) if call == "write training.safetensors" and k > some[0])
    logged = next(k for k, call in enumerate(calls, 1) if call == "write metrics.jsonl")
    codes = {
        calls[k - 1]: _break_and_mend(whole, tmp_path / str(k), k, errno.ENOSPC, tear=True) for k in (*some, written)
    }
    assert _break_and_mend(whole, tmp_path / "logged", logged, errno.ENOSPC) == 6
    assert set(codes.values()) <= {None, 6}, codes
    assert codes["write training.safetensors"] == 6


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_a_disk_that_comes_off_and_one_that_may_no_longer_be_written(whole, tmp_path, error):
    """Permission that is lost, like a disk that comes off, is a loud end: no run trains on for nothing."""
    assert _break_and_mend(whole, tmp_path / "runs", len(whole[2]) // 2, error, forever=True) == 6


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(4))
def test_every_call(whole, tmp_path, part):
    ks = range(1 + part, len(whole[2]) + 1, 4)
    codes = [_break_and_mend(whole, tmp_path / str(k), k, (errno.EIO, errno.ENOSPC)[k // 4 % 2], tear=True) for k in ks]
    print(f"{len(codes)} calls: {codes.count(6)} ended the run, {codes.count(None)} did not")
    assert set(codes) <= {None, 6}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_kind_of_call_from_which_on_all_fail(whole, tmp_path):
    for k in _kinds(whole[2]):
        assert _break_and_mend(whole, tmp_path / str(k), k, errno.EROFS, forever=True) in (None, 6)

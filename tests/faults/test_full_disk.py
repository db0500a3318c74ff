"""A disk that is really full: exit code 6 with what is needed and free, the former checkpoint intact, and the run goes on later."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from langevin import store
from langevin.errors import DiskError
from langevin.training import checkpoint
from tests.faults import tiny


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.name != "posix" or shutil.which("mount") is None:
        pytest.skip("nothing can be mounted here")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_run_fills_its_disk_and_goes_on_when_there_is_room(small, tmp_path):
    data = tiny.pictures(tmp_path)
    expected = tiny.outcome(tiny.begin(data, tmp_path / "runs", steps=6))
    ballast, codes = small / "ballast", []
    for free in (1_300_000, 4_000_000, 8_000_000):
        ballast.write_bytes(bytes(max(0, shutil.disk_usage(small).free - free)))
        try:
            tiny.begin_or_go_on(data, small / "runs", steps=6)
        except DiskError as error:
            codes.append(error.exit_code)
            said = str(error)
        ballast.unlink()
        for run in (small / "runs").glob("tiny-*"):
            for folder in checkpoint.folders(run)[:1]:
                store.verify(folder, checkpoint.PARTS)
    assert codes and set(codes) == {6}
    assert "needed" in said and "free" in said
    run = tiny.begin_or_go_on(data, small / "runs", steps=6)
    assert tiny.outcome(run) == expected
    assert not list(small.rglob(".tmp-*"))


def test_a_small_file_that_does_not_fit_leaves_the_former(small):
    store.write_file(small / "a.txt", "one")
    (small / "ballast").write_bytes(bytes(shutil.disk_usage(small).free - 8192))
    with pytest.raises(DiskError, match=r"disk is full: 1 MB needed, 0\.0\d+ MB free"):
        store.write_file(small / "a.txt", b"2" * 1_000_000)
    assert (small / "a.txt").read_text() == "one"
    assert {f.name for f in small.iterdir()} == {"a.txt", "ballast"}

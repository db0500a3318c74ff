"""Promises that a disk does not keep are told, one by one."""

import errno
import os
import shutil

import pytest

from langevin.disk import broken_promises, disk_errors
from langevin.errors import DiskError


def test_a_sound_disk_breaks_no_promise_and_nothing_is_left_of_the_trial(tmp_path):
    assert broken_promises(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_each_broken_promise_is_named(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(fd: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    def in_part(old: str, new: str) -> None:
        shutil.copytree(old, new)  # and the old one stays

    for module, name, fake, said in (
        (os, "fsync", refuse, "cannot be flushed"),
        (os, "rename", in_part, "not renamed in one act"),
        (fcntl, "flock", lambda file, how: None, "locks keep nobody out"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, fake)
            found = broken_promises(tmp_path)
        assert found and all(said in one for one in found)
        assert list(tmp_path.iterdir()) == []


def test_what_the_system_refuses_is_told_with_its_place_and_other_errors_pass(tmp_path):
    with pytest.raises(DiskError, match=r"disk refuses.*MB free") as caught, disk_errors(tmp_path):
        (tmp_path / "no" / "such").mkdir()
    assert caught.value.exit_code == 6
    for other in (BrokenPipeError(errno.EPIPE, "left"), OSError("a library's own")):
        with pytest.raises(type(other)) as passed, disk_errors(tmp_path):
            raise other
        assert passed.value is other


def test_a_disk_that_may_not_be_written_says_who_is_to_be_asked_and_no_name_that_nobody_gave(tmp_path):
    with pytest.raises(DiskError, match=r"Read-only.*see who may write") as caught, disk_errors(tmp_path / "model"):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / ".tmp-1-model"))
    assert caught.value.where == str(tmp_path / "model")

"""A disk that fails at the k-th call: opening to write, writing, flushing, renaming, removing, making folders."""

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NAMES = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "truncate", "link", "symlink")


class FailingDisk:
    """Inside the block every call that changes something under `root` is counted, and the k-th raises.

    Args:
        at: which call fails, from 1 on; 0 for none.
        error: its errno.
        forever: whether all later ones fail too, as on a disk that has come off.
        tear: whether a write that fails has written half of its bytes.
        then: called in the place of raising.

    Attributes:
        calls: what was called, "fsync step-000000001".
    """

    def __init__(
        self,
        root: Path,
        at: int = 0,
        error: int = errno.EIO,
        *,
        forever: bool = False,
        tear: bool = False,
        then: Callable[[], None] | None = None,
    ) -> None:
        self.root, self.at, self.error, self.forever, self.tear, self.then = root, at, error, forever, tear, then
        self.calls: list[str] = []

    def count(self, what: str, path: Any) -> None:
        """Take note of a call; raise where it is the one."""
        self.calls.append(f"{what} {Path(os.fsdecode(path)).name}")
        k = len(self.calls)
        if self.at and (k == self.at or (self.forever and k > self.at)):
            if self.then is not None:
                self.then()
            raise OSError(self.error, os.strerror(self.error), os.fsdecode(path))

    def _is_inside(self, path: Any) -> bool:
        return not isinstance(path, int) and Path(os.fsdecode(path)).absolute().is_relative_to(self.root)

    def __enter__(self) -> "FailingDisk":
        self._former = {name: getattr(os, name) for name in (*_NAMES, "fsync", "open")}
        self._open = io.open
        self._folders: dict[int, str] = {}
        for name in _NAMES:
            setattr(os, name, self._counted(name))
        os.fsync, os.open = self._fsync, self._os_open
        io.open = builtins.open = self._file
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._former.items():
            setattr(os, name, function)
        io.open = builtins.open = self._open

    def _counted(self, name: str) -> Callable[..., Any]:
        former = self._former[name]

        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            folder = named.get("dir_fd")  # rmtree removes by a folder that it has open
            if folder in self._folders or (folder is None and self._is_inside(path)):
                self.count(name, path)
            return former(path, *arguments, **named)

        return call

    def _os_open(self, path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        fd = self._former["open"](path, flags, *arguments, **named)
        folder = named.get("dir_fd")
        if folder in self._folders or (folder is None and self._is_inside(path)):
            self._folders[fd] = os.fsdecode(path)
        return fd

    def _fsync(self, fd: int) -> None:
        if self._is_inside(path := Path(f"/proc/self/fd/{fd}").resolve()):
            self.count("fsync", path)  # and it is believed: no test cuts the power

    def _file(self, file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
              newline: Any = None, closefd: bool = True, opener: Any = None) -> Any:  # fmt: skip
        if not set(mode) & set("wax+") or not self._is_inside(file):
            return self._open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        self.count("open", file)
        raw = _Raw(self, os.fsdecode(file), mode.replace("b", "").replace("t", ""))
        body: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return body if "b" in mode else io.TextIOWrapper(body, encoding, errors, newline)


class _Raw(io.FileIO):
    def __init__(self, disk: FailingDisk, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self._disk, self._path = disk, path

    def write(self, body: Any) -> int:
        try:
            self._disk.count("write", self._path)
        except OSError:
            if self._disk.tear:
                super().write(bytes(body)[: len(body) // 2])
            raise
        return super().write(body)

    def truncate(self, size: int | None = None) -> int:
        self._disk.count("truncate", self._path)
        return super().truncate(size)

"""Files under a folder or in a zip, by name. Nothing is extracted, no link is followed twice, nothing outside is read."""

import contextlib
import errno
import os
import stat
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from langevin.data.dataset import Reject
from langevin.data.pictures import FOREIGN, MAX_BYTES, SUFFIXES
from langevin.data.sources.base import Unusable
from langevin.data.sources.stream import damage_refused
from langevin.errors import DataError, RefusedError

TABLES = ("metadata.csv", "metadata.jsonl")
_GROWTH = 200  # an archive of pictures that grows more than this many times, and past 1 GB, is a bomb
_GROWTH_MINDED = 1 << 30


@dataclass(frozen=True)
class Tree:
    """Pictures (sorted names, "/" between folders), the metadata tables, and how to read one.

    `read(name)` gives the bytes or raises Unusable; `stat(name)` what tells whether a file changed, None in a zip.
    """

    pictures: tuple[str, ...]
    tables: tuple[str, ...]
    read: Callable[[str], bytes]
    stat: Callable[[str], os.stat_result | None]
    rejects: tuple[Reject, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)


def folder_tree(root: Path) -> Tree:
    """Walks a folder; links to folders are followed unless they lead back. Raises DataError where it cannot be read."""
    names: list[str] = []
    rejects: list[Reject] = []

    def walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            here = os.stat(folder)  # noqa: PTH116 - names that are not UTF-8 stay what they are
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise DataError(f"the folder cannot be read: {error.strerror}", where=folder) from None
            rejects.append(Reject(prefix, "UNREADABLE_FOLDER", error.strerror or str(error)))
            return
        if (here.st_dev, here.st_ino) in above:
            rejects.append(Reject(prefix, "LINK_LOOP", "a link that leads back to a folder above it"))
            return
        for entry in entries:
            name = prefix + entry.name
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False
            if is_folder and not entry.name.startswith("."):
                walk(entry.path, name + "/", above | {(here.st_dev, here.st_ino)})
            else:
                names.append(name)

    walk(str(root), "", frozenset())

    def read(name: str) -> bytes:
        path = root / name
        for attempt in (1, 2):
            try:
                found = path.stat()
                if not stat.S_ISREG(found.st_mode):
                    raise Unusable("NOT_AN_IMAGE", "not a plain file")
                if found.st_size > MAX_BYTES:
                    raise Unusable("TOO_LARGE", f"{found.st_size:,} bytes")
                return path.read_bytes()
            except FileNotFoundError:
                if attempt == 2:
                    what = "a link to nothing" if path.is_symlink() else "listed, but gone when it was read"
                    raise Unusable("VANISHED", what) from None
                time.sleep(0.02)
            except OSError as error:
                code = "LINK_LOOP" if error.errno == errno.ELOOP else "UNREADABLE"
                raise Unusable(code, error.strerror or str(error)) from None
        raise AssertionError("unreachable")

    def stat_of(name: str) -> os.stat_result | None:
        with contextlib.suppress(OSError):
            return (root / name).stat()
        return None

    return _sorted_out(names, read, stat_of, rejects)


def zip_tree(path: Path) -> Tree:
    """The members of a zip. Raises RefusedError for what is no whole zip, or grows beyond reason."""
    with damage_refused(str(path)):
        archive = zipfile.ZipFile(path)
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    grown = sum(info.file_size for info in members.values())
    if grown > max(_GROWTH_MINDED, _GROWTH * path.stat().st_size):
        raise RefusedError(f"{path.stat().st_size:,} bytes that would grow to {grown:,}", where=str(path))
    rejects = [Reject(name, "UNSAFE_NAME", "leads out of the archive") for name in members if _leads_out(name)]

    def read(name: str) -> bytes:
        info = members[name]
        if info.file_size > MAX_BYTES:
            raise Unusable("TOO_LARGE", f"{info.file_size:,} bytes")
        try:
            with damage_refused(name), archive.open(info) as file:
                return file.read(MAX_BYTES)
        except RefusedError as error:  # damaged, encrypted, or compressed in an unknown way
            raise Unusable("UNREADABLE", error.what) from None

    return _sorted_out([name for name in members if not _leads_out(name)], read, lambda name: None, rejects)


def _leads_out(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return ".." in parts or name.startswith(("/", "\\")) or "\0" in name or ":" in name[:2]


def _sorted_out(
    names: list[str],
    read: Callable[[str], bytes],
    stat_of: Callable[[str], os.stat_result | None],
    rejects: list[Reject],
) -> Tree:
    pictures: list[str] = []
    tables: list[str] = []
    ignored: Counter[str] = Counter()
    for name, base, suffix in _named(names):
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
        if hidden:
            ignored["hidden files"] += 1
        elif suffix in SUFFIXES:
            pictures.append(name)
        elif suffix in FOREIGN:
            rejects.append(Reject(name, "UNSUPPORTED", f"{suffix} is not read: convert it to PNG or JPEG"))
        elif base in TABLES:
            tables.append(name)
        else:
            ignored[suffix or "no suffix"] += 1
    return Tree(tuple(sorted(pictures)), tuple(sorted(tables)), read, stat_of, tuple(rejects), ignored)


def _named(names: list[str]) -> Iterator[tuple[str, str, str]]:
    for name in names:
        base = name.rpartition("/")[2].lower()
        yield name, base, os.path.splitext(base)[1]  # noqa: PTH122

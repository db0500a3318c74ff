"""Decoded pictures on disk, as a memory map, under a key that is a hash of what they were decoded from.

    <cache>/pictures/<key>/items.bin     the items, C order
                           rows.bin      one ROW an item: sha256 of its bytes, which source item it is, which frame
                           facts.json    shape, dtype, notes, rejects, ...; sha256 of rows.bin and of itself
    <cache>/files/<folder>.json          file -> size, times, inode, sha256, header; saves hashing what did not change

An entry is written beside its place and renamed when it is whole and on the disk. One that is damaged is made again.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langevin.errors import DiskError
from langevin.store import flush

FORMAT = 2
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR, errno.EIO}
ROW = np.dtype([("digest", "u1", 32), ("source", "<i8"), ("frame", "<i4")])
CHECKED_IN_FULL = 1 << 28  # bytes of items up to which each one's sha256 is compared when an entry is opened
_SETTLED = 2_000_000_000  # ns; a file changed less than this before it was hashed may change again unseen


@dataclass(frozen=True)
class Entry:
    """Decoded pictures: items (N, H, W, C), rows (N,) of ROW, and what was noted while decoding."""

    items: np.ndarray
    rows: np.ndarray
    facts: dict[str, Any]


def root(cache: str | Path | None) -> Path:
    """The cache folder: the argument, else $LANGEVIN_CACHE, else ~/.cache/langevin."""
    return Path(cache or os.environ.get("LANGEVIN_CACHE") or Path.home() / ".cache" / "langevin").expanduser()


@contextlib.contextmanager
def disk_errors(where: Path, need: int = 0) -> Iterator[None]:
    """A full or refusing disk becomes a DiskError that says how much is needed and free."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        wanted = f", {need / 1e6:,.1f} MB are needed" if need else ""
        raise DiskError(
            f"cannot write: {os.strerror(error.errno)}{wanted}, {_free(where) / 1e6:,.1f} MB free",
            where=str(where),
            help="free some space, or name another cache folder with LANGEVIN_CACHE",
        ) from error


def _free(where: Path) -> int:
    while not where.exists() and where != where.parent:
        where = where.parent
    return shutil.disk_usage(where).free


def check_space(where: Path, need: int) -> None:
    """Raises DiskError before anything is written where `need` bytes (and a little more) are not free."""
    if _free(where) < need + (16 << 20):
        raise DiskError(
            f"decoded, the data need {need / 1e6:,.1f} MB and {_free(where) / 1e6:,.1f} MB are free",
            where=str(where),
            help="free some space, name another cache folder with LANGEVIN_CACHE, or ask for smaller pictures (size)",
        )


def _sealed(facts: dict[str, Any]) -> str:
    text = json.dumps({k: v for k, v in facts.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load(folder: Path) -> Entry | None:
    """The entry in `folder`, or None where there is none or it is damaged in any way that can be seen."""
    try:
        facts = json.loads((folder / "facts.json").read_bytes())
        if facts["format"] != FORMAT or facts["sha256"] != _sealed(facts):
            return None
        stored = (folder / "rows.bin").read_bytes()
        if hashlib.sha256(stored).hexdigest() != facts["rows_sha256"]:
            return None
        rows, shape, dtype = np.frombuffer(stored, ROW), tuple(facts["shape"]), np.dtype(facts["dtype"])
        size = len(rows) * int(np.prod(shape)) * dtype.itemsize
        if (folder / "items.bin").stat().st_size != size:
            return None
        if size == 0:
            return Entry(np.zeros((0, *shape), dtype), rows, facts)
        items = np.memmap(folder / "items.bin", dtype=dtype, mode="r", shape=(len(rows), *shape))
        if size <= CHECKED_IN_FULL and not all(
            hashlib.sha256(item).digest() == row.tobytes() for item, row in zip(items, rows["digest"], strict=True)
        ):
            return None
        return Entry(items, rows, facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@contextlib.contextmanager
def being_made(folder: Path) -> Iterator[Path]:
    """A folder to write an entry in; becomes `folder` when the block ends well and vanishes when it does not."""
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        yield scratch
        with disk_errors(folder):
            for part in scratch.iterdir():
                flush(part)
            if load(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                try:
                    scratch.rename(folder)
                except OSError:  # somebody else made the same entry in the meantime
                    if load(folder) is None:
                        raise
            flush(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes what a killed process left more than a day ago."""
    for left in folder.glob(".making-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)


def finish(scratch: Path, rows: np.ndarray, facts: dict[str, Any]) -> None:
    """Writes rows.bin and facts.json beside items.bin."""
    stored = rows.astype(ROW).tobytes()
    facts = {**facts, "format": FORMAT, "rows_sha256": hashlib.sha256(stored).hexdigest()}
    facts["sha256"] = _sealed(facts)
    (scratch / "rows.bin").write_bytes(stored)
    (scratch / "facts.json").write_text(json.dumps(facts))


class Files:
    """What is known of the files of one folder from earlier: {name: [size, mtime, ctime, inode, sha256, extra]}.

    A file is taken as unchanged only when all four agree and it had been left alone for two seconds when it was
    hashed: a second change within one tick of the file system's clock leaves the times as they were.
    """

    def __init__(self, cache: Path, folder: str) -> None:
        self._path = cache / "files" / (hashlib.sha256(os.fsencode(folder)).hexdigest() + ".json")
        self._known: dict[str, list[Any]] = {}
        self._kept: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            known = json.loads(self._path.read_bytes())
            if isinstance(known, dict) and known.get("sha256") == _sealed(known):
                self._known = known["files"]

    def get(self, name: str, stat: os.stat_result) -> tuple[str, Any] | None:
        """sha256 and extra of an unchanged file, else None."""
        row = self._known.get(name)
        if row is None or row[:4] != [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]:
            return None
        self._kept[name] = row
        return row[4], row[5]

    def put(self, name: str, stat: os.stat_result, sha256: str, extra: Any) -> None:
        """Remembers a file as `stat` described it before it was read."""
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED:
            self._kept[name] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, sha256, extra]

    def save(self) -> None:
        """Writes what is known now; a disk that refuses costs only the time of hashing again."""
        if self._kept == self._known:
            return
        known: dict[str, Any] = {"files": self._kept}
        known["sha256"] = _sealed(known)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, prefix=".making-", delete=False) as file:
                file.write(json.dumps(known))  # json.dump is many times slower
            Path(file.name).replace(self._path)


def file_sha256(path: Path, cache: Path) -> str:
    """sha256 (hex) of a file, from memory where it did not change."""
    files, stat = Files(cache, str(path.resolve())), path.stat()
    if (known := files.get(path.name, stat)) is None:
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest(), None
        files.put(path.name, stat, *known)
        files.save()
    return known[0]

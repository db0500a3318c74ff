"""The cache: one decoding, damage found and mended, nothing half written, and fingerprints that tell what changed."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from langevin import data
from langevin.data import cache, gather, layout, png
from langevin.data.dataset import Dataset
from langevin.data.sources import folder as folder_source
from langevin.errors import DiskError

RANDOM = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for k in range(12):
        (folder / "ab"[k % 2] / f"{k}.png").write_bytes(png.encoded(noise(6, 6, 3)))
    (folder / "metadata.csv").write_text(
        "file_name,text\n" + "".join(f"{'ab'[k % 2]}/{k}.png,t{k}\n" for k in range(12))
    )
    return folder


def opened(path: Path, tmp_path: Path, **options: object) -> Dataset:
    return data.open(path, cache=tmp_path / "cache", **options)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many pictures were decoded since the last call."""
    count, decode = [0], layout.decode

    def counted(*args: object, **options: object) -> object:
        count[0] += 1
        return decode(*args, **options)

    monkeypatch.setattr(layout, "decode", counted)

    def since() -> int:
        n, count[0] = count[0], 0
        return n

    return since


def entry_of(tmp_path: Path) -> Path:
    (entry,) = (tmp_path / "cache" / "pictures").iterdir()
    return entry


def test_each_picture_is_decoded_once(pictures: Path, tmp_path: Path, decodings: Callable[[], int]) -> None:
    first = opened(pictures, tmp_path)
    assert decodings() == 12
    again = opened(pictures, tmp_path)
    assert decodings() == 0
    assert np.array_equal(first.items, again.items)
    assert first.fingerprint == again.fingerprint
    assert isinstance(first.items, np.memmap)
    assert not first.items.flags.writeable
    elsewhere = tmp_path / "moved"
    shutil.copytree(pictures, elsewhere)
    assert opened(elsewhere, tmp_path).fingerprint == first.fingerprint
    assert decodings() == 0
    assert opened(pictures, tmp_path, size=4).shape == (4, 4, 3)
    assert decodings() == 12


def test_files_left_alone_are_not_read_again(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened(pictures, tmp_path).fingerprint
    monkeypatch.setattr(cache, "_SETTLED", -1)  # as if two seconds had gone by
    opened(pictures, tmp_path)
    reads = []
    header = folder_source.header
    monkeypatch.setattr(folder_source, "header", lambda data: reads.append(1) or header(data))
    assert opened(pictures, tmp_path).fingerprint == before
    assert reads == []
    changed = pictures / "a" / "0.png"
    changed.write_bytes(png.encoded(noise(6, 6, 3)))
    assert opened(pictures, tmp_path).fingerprint != before
    assert len(reads) == 1


def test_an_edit_that_keeps_size_and_time_is_seen(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SETTLED", -1)
    path = pictures / "a" / "0.png"
    before, times = opened(pictures, tmp_path).fingerprint, path.stat()
    content = bytearray(path.read_bytes())
    path.write_bytes(png.encoded(noise(6, 6, 3)).ljust(len(content), b"\0")[: len(content)])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert opened(pictures, tmp_path).fingerprint != before


@pytest.mark.parametrize("part", ["items.bin", "rows.bin", "facts.json"])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "first byte", "last byte", "middle byte", "longer"])
def test_a_broken_cache_is_made_again(
    pictures: Path, tmp_path: Path, decodings: Callable[[], int], part: str, harm: str
) -> None:
    whole = np.array(opened(pictures, tmp_path).items)
    decodings()
    path = entry_of(tmp_path) / part
    content = bytearray(path.read_bytes())
    place = {"first byte": 0, "last byte": -1, "middle byte": len(content) // 2}.get(harm)
    if place is not None:
        content[place] ^= 1
    if harm == "missing":
        path.unlink()
    else:
        end = {"empty": 0, "cut": len(content) - 1}.get(harm)
        path.write_bytes(bytes(content[:end]) + (b"x" if harm == "longer" else b""))
    got = opened(pictures, tmp_path)
    assert decodings() == 12
    assert np.array_equal(got.items, whole)
    assert opened(pictures, tmp_path).fingerprint == got.fingerprint
    assert decodings() == 0


def test_facts_that_were_swapped_are_not_believed(pictures: Path, tmp_path: Path, decodings: Callable[[], int]) -> None:
    opened(pictures, tmp_path)
    decodings()
    path = entry_of(tmp_path) / "facts.json"
    facts = json.loads(path.read_bytes())
    facts["shape"] = [6, 3, 6]
    path.write_text(json.dumps(facts))
    assert opened(pictures, tmp_path).shape == (6, 6, 3)
    assert decodings() == 12


def test_a_stop_while_decoding_leaves_nothing(pictures: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(pictures, tmp_path, progress=stop)
    assert list((tmp_path / "cache" / "pictures").iterdir()) == []
    seen = []
    opened(pictures, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (24, 24)


def test_a_full_disk_is_said_with_need_and_free(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(1 << 30, 1 << 30, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DiskError, match=r"need 0\.0 MB and 0\.0 MB are free") as caught:
            opened(pictures, tmp_path)
    assert caught.value.exit_code == 6
    with monkeypatch.context() as patch:

        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(gather.Writer, "append", full)
        with pytest.raises(DiskError, match="No space left"):
            opened(pictures, tmp_path)
    assert list((tmp_path / "cache" / "pictures").iterdir()) == []
    assert len(opened(pictures, tmp_path)) == 12


def test_a_cache_that_cannot_be_written_is_a_disk_error(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        data.open(pictures, cache=tmp_path / "file")


def test_the_fingerprint_is_that_of_the_contents(pictures: Path, tmp_path: Path) -> None:
    """FAULT 14."""
    first = opened(pictures, tmp_path).fingerprint
    for path in pictures.rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert opened(pictures, tmp_path).fingerprint == first
    backwards = tmp_path / "backwards"
    for path in sorted(pictures.rglob("*.*"), reverse=True):
        target = backwards / path.relative_to(pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    rows = (backwards / "metadata.csv").read_text().splitlines()
    (backwards / "metadata.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]))
    assert opened(backwards, tmp_path).fingerprint == first
    seen = {first}

    def changed(change: Callable[[Path], object]) -> str:
        copy = tmp_path / f"copy-{len(seen)}"
        shutil.copytree(pictures, copy)
        change(copy)
        seen.add(fingerprint := opened(copy, tmp_path, allow_rejects=0.5).fingerprint)
        return fingerprint

    def one_level(folder: Path) -> None:
        pixels = np.array(opened(folder, tmp_path).items[0])
        pixels[3, 3, 1] ^= 1
        (folder / opened(folder, tmp_path).names[0]).write_bytes(png.encoded(pixels))

    def replace(old: str, new: str) -> Callable[[Path], object]:
        return lambda folder: (folder / "metadata.csv").write_text(
            (folder / "metadata.csv").read_text().replace(old, new)
        )

    changes = [
        one_level,
        replace(",t3\n", ",T3\n"),
        lambda folder: (folder / "a" / "0.png").unlink(),
        lambda folder: (folder / "a" / "0.png").rename(folder / "b" / "00.png"),
        lambda folder: (folder / "b").rename(folder / "c"),
        lambda folder: (folder / "a" / "99.png").write_bytes(png.encoded(noise(6, 6, 3))),
        lambda folder: (folder / "metadata.csv").unlink(),
        replace("text\n", "caption\n"),
    ]
    for change in changes:
        changed(change)
    assert len(seen) == 1 + len(changes)
    again = tmp_path / "recompressed"  # other bytes, the same pixels
    shutil.copytree(pictures, again)
    from PIL import Image

    for path in again.rglob("*.png"):
        with Image.open(path) as im:
            im.save(path, compress_level=1)
    assert opened(again, tmp_path).fingerprint == first


def test_a_file_changed_a_moment_ago_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second write within one tick of the file system's clock leaves size and times as they were."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    files = cache.Files(tmp_path / "cache", "folder")
    files.put("file", path.stat(), "sha", None)
    files.save()
    assert cache.Files(tmp_path / "cache", "folder").get("file", path.stat()) is None
    now = cache.time.time_ns()
    monkeypatch.setattr(cache.time, "time_ns", lambda: now + 3_000_000_000)
    files.put("file", path.stat(), "sha", [1])
    files.save()
    assert cache.Files(tmp_path / "cache", "folder").get("file", path.stat()) == ("sha", [1])
    path.write_bytes(b"two!")
    assert cache.Files(tmp_path / "cache", "folder").get("file", path.stat()) is None


def test_two_who_make_the_same_entry_at_once(tmp_path: Path) -> None:
    folder, rows = tmp_path / "entry", np.zeros(2, cache.ROW)
    items = noise(2, 3, 3, 1)
    rows["digest"] = [np.frombuffer(hashlib.sha256(item).digest(), np.uint8) for item in items]

    def fill(scratch: Path) -> None:
        (scratch / "items.bin").write_bytes(items.tobytes())
        cache.finish(scratch, rows, {"shape": [3, 3, 1], "dtype": "uint8"})

    with cache.being_made(folder) as outer:
        fill(outer)
        with cache.being_made(folder) as inner:
            fill(inner)
        first = cache.load(folder)
    second = cache.load(folder)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.items, items)
    assert np.array_equal(second.items, items)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry"]

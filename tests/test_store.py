"""Folders are whole or not there; damaged and hostile files are refused."""

import errno
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from langevin import store
from langevin.errors import DiskError, RefusedError, UsageError


def _write(text: str):
    return lambda folder: (folder / "a.txt").write_text(text)


def test_a_folder_is_what_was_written_and_its_manifest_agrees(tmp_path):
    store.write_folder(tmp_path / "x", _write("hello"))
    assert (tmp_path / "x/a.txt").read_text() == "hello"
    store.verify(tmp_path / "x")


def test_a_flipped_byte_a_cut_file_and_a_missing_file_are_named(tmp_path):
    for harm in ("flip", "cut", "gone"):
        folder = store.write_folder(tmp_path / harm, lambda f: (f / "w.bin").write_bytes(bytes(range(200))))
        body = bytearray((folder / "w.bin").read_bytes())
        if harm == "flip":
            body[100] ^= 1
            (folder / "w.bin").write_bytes(body)
        elif harm == "cut":
            (folder / "w.bin").write_bytes(body[:50])
        else:
            (folder / "w.bin").unlink()
        with pytest.raises(RefusedError, match=r"w\.bin"):
            store.verify(folder)


def test_nothing_is_overwritten_unless_asked_and_a_failure_keeps_the_former(tmp_path, monkeypatch):
    store.write_folder(tmp_path / "x", _write("one"))
    with pytest.raises(FileExistsError):
        store.write_folder(tmp_path / "x", _write("two"))

    def full(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskError) as caught:
        store.write_folder(tmp_path / "x", full, replace=True)
    assert caught.value.exit_code == 6
    assert (tmp_path / "x/a.txt").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 5_000_000))
    with pytest.raises(DiskError, match="8 MB needed, 5 MB free"):
        store.write_folder(tmp_path / "y", _write("z"), size=7_000_000)


def test_a_writer_killed_at_any_moment_leaves_only_whole_folders(tmp_path):
    program = (
        "import sys; from pathlib import Path; from langevin import store\n"
        "k = 0\n"
        "while True:\n"
        "    k += 1\n"
        "    def fill(f):\n"
        "        for j in range(4): (f / f'{j}.bin').write_bytes(bytes([k % 256]) * 200_000)\n"
        "    store.write_folder(Path(sys.argv[1]) / 'latest', fill, replace=True)\n"
        "    store.write_folder(Path(sys.argv[1]) / f'step-{k:06d}', fill)\n"
        "    print(k, flush=True)\n"
    )
    for delay in (0.0, 0.013, 0.031):
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / str(delay))], stdout=subprocess.PIPE) as p:
            p.stdout.readline()
            time.sleep(delay)
            p.send_signal(signal.SIGKILL)
        run = tmp_path / str(delay)
        store.clean(run)
        assert not list(run.glob(".tmp-*"))
        found = sorted(run.glob("step-*"))
        assert found
        for folder in found:
            store.verify(folder)
            assert len({f.read_bytes() for f in folder.glob("*.bin")}) == 1


def test_leavings_of_a_living_process_stay(tmp_path):
    """Nor are those of another machine taken, unless nobody else can be writing; a number that is ours now was another's."""
    kept = {".tmp-backup", ".tmp-1-of-mine"}
    maybe = {f".tmp-{os.getppid()}-0123abcd-x", ".tmp-999999999-00000000aaaaaaaa-x"}
    left = {f".tmp-{os.getpid()}-0123abcd-x", ".tmp-999999999-0123abcd-x"}
    for name in kept | maybe | left:
        (tmp_path / name).mkdir()
    (tmp_path / ".tmp-999999999-0123abcd-file").touch()
    store.clean(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == kept | maybe
    writing = []

    def fill(folder: Path) -> None:
        writing.append(folder.name)
        store.clean(tmp_path, alone=True)
        assert folder.is_dir()

    store.write_folder(tmp_path / "whole", fill)
    assert {p.name for p in tmp_path.iterdir()} == kept | {"whole"}
    assert writing


def test_a_folder_put_aside_by_a_killed_process_comes_back(tmp_path):
    store.write_folder(tmp_path / "model", _write("one"))
    (tmp_path / "model").rename(tmp_path / ".tmp-999999999-0123abcd-old-model")
    store.clean(tmp_path)
    assert (tmp_path / "model/a.txt").read_text() == "one"


def test_a_manifest_that_names_too_little_is_no_mark_of_a_whole_folder(tmp_path):
    folder = store.write_folder(tmp_path / "x", _write("one"))
    (folder / "manifest.json").write_text("{}")
    store.verify(folder)
    with pytest.raises(RefusedError, match=r"does not name a\.txt"):
        store.verify(folder, ["a.txt"])


def test_tensors_are_written_as_the_library_writes_them(tmp_path):
    from safetensors.torch import load_file, save

    dtypes = (torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16, torch.int64, torch.float64)
    tensors = {"b.w": torch.randn(3, 5).T, 'é"': torch.zeros(0, 4), "a": torch.tensor(2.0), "c": torch.arange(6.0)[::2]}
    store.write_tensors(tmp_path / "same", tensors)
    assert (tmp_path / "same").read_bytes() == save({k: v.contiguous() for k, v in tensors.items()})
    tensors |= {str(d): torch.arange(5).to(d) for d in dtypes}
    store.write_tensors(tmp_path / "all", tensors)
    for found in (load_file(tmp_path / "all"), store.read_tensors(tmp_path / "all", tensors)):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in tensors.items())


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    store.write_file(tmp_path / "a.txt", "é\ud800")
    assert (tmp_path / "a.txt").read_bytes() == "é?".encode()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"disk is full: 0\.000 MB needed") as caught:
        store.write_file(tmp_path / "a.txt", "two")
    assert caught.value.exit_code == 6
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ["é?".encode()]


def test_a_folder_without_a_flush_of_its_own_is_let_be_and_a_file_is_not(tmp_path, monkeypatch):
    def refuse(fd: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "fsync", refuse)
    store.flush(tmp_path)
    with pytest.raises(OSError, match="Invalid"):
        store.flush(tmp_path / "a")


def test_free_path_counts_up_and_taken_is_refused(tmp_path):
    assert store.free_path(tmp_path / "a.png").name == "a-1.png"
    (tmp_path / "a-1.png").touch()
    assert store.free_path(tmp_path / "a.png").name == "a-2.png"
    with pytest.raises(UsageError):
        store.refuse_taken(tmp_path / "a-1.png")


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("name", ["m.pt", "m.ckpt", "m.bin", "m.pth", "m.pkl", "model.safetensors"])
def test_a_pickle_by_any_name_is_refused_and_does_not_run(tmp_path, name):
    ran = tmp_path / "ran"
    (tmp_path / name).write_bytes(pickle.dumps({"w": _Payload(ran)}))
    with pytest.raises(RefusedError) as caught:
        store.read_tensors(tmp_path / name)
    assert caught.value.exit_code == 7
    torch.save({"w": _Payload(ran)}, tmp_path / f"zipped-{name}")
    with pytest.raises(RefusedError):
        store.read_tensors(tmp_path / f"zipped-{name}")
    assert not ran.exists()


def _file(path: Path, header: object, payload: bytes = b"\0" * 64, length: int | None = None) -> Path:
    body = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body) if length is None else length) + body + payload)
    return path


F32 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"w": F32}, 10**12),
        ({"w": F32}, 5),
        ([1, 2], None),
        ({"w": 3}, None),
        ({"w": F32, "v": F32}, None),  # overlapping offsets
        ({"w": {**F32, "data_offsets": [0, 1 << 50]}}, None),
        ({"w": {**F32, "data_offsets": [16, 0]}}, None),
        ({"w": {**F32, "dtype": "F99"}}, None),
        ({"w": {**F32, "shape": [2**62, 4]}}, None),
    ],
)
def test_hostile_safetensors_headers_are_refused(tmp_path, header, length):
    with pytest.raises(RefusedError):
        store.read_tensors(_file(tmp_path / "h.safetensors", header, length=length))


def test_other_tensors_than_expected_are_named_before_anything_is_loaded(tmp_path):
    store.write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(3), "../../x": torch.zeros(2)})
    with pytest.raises(RefusedError, match=r"b missing.*\.\./\.\./x not known"):
        store.read_tensors(tmp_path / "w.safetensors", expected={"a": torch.zeros(3), "b": torch.zeros(1)})
    many = {f"k{i}": torch.zeros(1) for i in range(30)}
    with pytest.raises(RefusedError, match="and 22 more"):
        store.read_tensors(tmp_path / "w.safetensors", expected={**many, "a": torch.zeros(4, dtype=torch.float64)})


def test_a_million_keys_are_refused_in_bounded_memory(tmp_path):
    header = "{" + ",".join(f'"k{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(400_000)) + "}"
    path = tmp_path / "many.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    with pytest.raises(RefusedError, match="beyond reason"):
        store.read_tensors(path)

"""Folders on disk that are whole or not there, and files that cannot execute.

A folder is written beside its place, every file and the folder itself flushed to the disk, and then renamed: a process that
is killed at any byte leaves the former state and a `.tmp-` folder that the next start removes. `manifest.json` holds the
sha256 of every file, since safetensors does not notice a flipped byte in its payload. Only JSON, text and safetensors are
read; anything else is refused by its looks, without being opened by anything that could run it.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import struct
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langevin.errors import DiskError, RefusedError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
MAX_JSON = 16 << 20
MAX_HEADER = 16 << 20
_OLD = "-old-"
_LEFT = re.compile(r"\.tmp-(?P<pid>\d{1,9})-[0-9a-f]{8}-.*", re.DOTALL)
_UNSAFE = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".distcp", ".metadata", ".joblib", ".npy"}


def digest(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Put a file or folder on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_path(path: Path) -> Path:
    """`NAME-1.png` for `NAME.png`, or the next number at which nothing lies."""
    k = 1
    while (found := path.with_name(f"{path.stem}-{k}{path.suffix}")).exists():
        k += 1
    return found


def refuse_taken(path: Path) -> None:
    """Raise UsageError where something lies at `path`: nothing is ever overwritten."""
    if path.exists():
        raise UsageError("there is something already", where=str(path), help="choose another name")


def need_space(folder: Path, size: int) -> None:
    """Raise DiskError where `folder` has less room than `size` bytes and a little more."""
    free = shutil.disk_usage(folder).free
    if free < size + (1 << 20):
        raise DiskError(
            f"the disk is full: {size / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free",
            where=str(folder),
            help="free some space; what was saved before is intact",
        )


def write_folder(path: Path, write: Callable[[Path], None], *, size: int = 0, replace: bool = False) -> Path:
    """Make the folder `path` from what `write(folder)` puts into it: all of it or nothing.

    Args:
        path: where; must not be there unless `replace`.
        size: bytes that will be written, to be checked against the disk beforehand.
        replace: whether a folder at `path` gives way. It is put aside first and deleted last.

    Raises:
        DiskError: no room, or the disk refused. What was there before is there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clean(path.parent)
    need_space(path.parent, size)
    if path.exists() and not replace:
        raise FileExistsError(path)
    tmp = path.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        tmp.mkdir()
        write(tmp)
        files = {f.name: {"sha256": digest(f), "size": f.stat().st_size} for f in sorted(tmp.iterdir())}
        (tmp / MANIFEST).write_text(json.dumps(files, indent=1))
        for file in (*tmp.iterdir(), tmp):
            flush(file)
        if path.exists():
            aside = path.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}{_OLD}{path.name}")
            path.rename(aside)
            try:
                tmp.rename(path)
            except OSError:
                aside.rename(path)
                raise
            shutil.rmtree(aside)
        else:
            tmp.rename(path)
        flush(path.parent)
    except OSError as error:
        shutil.rmtree(tmp, ignore_errors=True)
        raise DiskError(
            f"could not write: {error.strerror or error}",
            where=str(path),
            help=f"{shutil.disk_usage(path.parent).free / 1e6:.0f} MB are free; what was saved before is intact",
        ) from error
    return path


def clean(folder: Path) -> None:
    """Remove what a killed process left half written in `folder`, and put back a folder that it had only put aside.

    The leavings of living processes stay, and so does everything that is not named as this module names things.
    """
    for left in folder.glob(".tmp-*"):
        ours = _LEFT.fullmatch(left.name)
        if ours is None or is_alive(int(ours["pid"])):
            continue
        former = left.name.partition(_OLD)[2]
        if former and not (folder / former).exists():
            left.rename(folder / former)
        else:
            shutil.rmtree(left, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine, this one included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def verify(path: Path) -> None:
    """Compare every file of a folder with its manifest.

    Raises:
        RefusedError: naming the file that is missing, cut short or changed.
    """
    files = read_json(path / MANIFEST)
    for name, entry in files.items():
        file = path / name
        if Path(name).name != name or not isinstance(entry, dict):
            raise RefusedError("the manifest names a file outside its folder", where=str(path / MANIFEST))
        if not file.is_file():
            raise RefusedError("a file is missing", where=str(file), help="use another copy")
        if file.stat().st_size != entry.get("size") or digest(file) != entry.get("sha256"):
            raise RefusedError(
                "the file is damaged: its sha256 is not the manifest's", where=str(file), help="use another copy"
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most 16 MB. Raises RefusedError."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise RefusedError("the file is too large to be what it should be", where=str(path))
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RefusedError(f"there is no {path.name}", where=str(path.parent)) from None
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"not readable JSON: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise RefusedError("not a JSON object", where=str(path))
    return found


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """A safetensors file of contiguous CPU copies."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    copies = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    try:
        save_file(copies, path)
    except SafetensorError as error:  # a disk that is full, told by the library in its own words
        raise OSError(errno.EIO, str(error)) from error


def size_of(tensors: Mapping[str, "Tensor"]) -> int:
    """Bytes that the tensors take."""
    return sum(v.numel() * v.element_size() for v in tensors.values())


def read_tensors(path: Path, expected: Mapping[str, "Tensor"] | None = None) -> dict[str, "Tensor"]:
    """The tensors of a safetensors file.

    Args:
        expected: tensors whose names, shapes and types the file must have, checked before anything is loaded.

    Raises:
        RefusedError: not a safetensors file, a header beyond reason, or other tensors than expected (the first ten named).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_unsafe(path)
    header = _header(path)
    if expected is not None:
        found = {k: (tuple(v.get("shape", ())), v.get("dtype")) for k, v in header.items() if k != "__metadata__"}
        wanted = {k: (tuple(v.shape), _dtype_name(v)) for k, v in expected.items()}
        wrong = [f"{k} missing" for k in wanted if k not in found]
        wrong += [f"{k} not known" for k in found if k not in wanted]
        wrong += [f"{k} is {found[k]}, not {wanted[k]}" for k in wanted if k in found and found[k] != wanted[k]]
        if wrong:
            more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
            raise RefusedError(f"the weights do not fit the model: {'; '.join(wrong[:10])}{more}", where=str(path))
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RefusedError(f"not a sound safetensors file: {error}", where=str(path)) from None


def _dtype_name(tensor: "Tensor") -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    return {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}.get(
        name, name.upper()
    )


def _header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, in bounded memory."""
    size = path.stat().st_size
    with path.open("rb") as f:
        start = f.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else math.inf
        if length > min(MAX_HEADER, size - 8):
            raise RefusedError("not a sound safetensors file: its header is cut or beyond reason", where=str(path))
        try:
            header = json.loads(f.read(length))
        except (ValueError, RecursionError):
            raise RefusedError("not a safetensors file", where=str(path)) from None
    if not isinstance(header, dict) or not all(isinstance(v, dict) for v in header.values()):
        raise RefusedError("not a safetensors file", where=str(path))
    return header


def refuse_unsafe(path: Path) -> None:
    """Raise RefusedError for a file that may hold a pickle, by its ending or first bytes. Nothing of it is run."""
    if path.is_dir():
        if any((path / own).exists() for own in ("config.json", "config.yaml", "model", "checkpoints")):
            return
        found = next((f for f in sorted(path.iterdir()) if f.suffix in _UNSAFE or f.name == ".metadata"), None)
        if found is None:
            return
        path = found
    elif path.suffix == ".safetensors":  # whatever hides behind this name fails as a header
        return
    elif path.suffix not in _UNSAFE:
        with path.open("rb") as f:
            start = f.read(4)
        if start[:1] != b"\x80" and start != b"PK\x03\x04":
            return
    raise RefusedError(
        f"`{path.name}` is of a kind that can run code when it is loaded; it was not opened",
        where=str(path),
        help="convert it to safetensors where it was made and is trusted: safetensors.torch.save_file(state_dict, 'model.safetensors')",
    )

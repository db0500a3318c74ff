"""Folders on disk that are whole or not there, and files that cannot execute.

A folder is written beside its place: its files, each flushed to the disk, then `manifest.json` with the sha256 of every one,
then the folder is flushed and renamed, and its parent flushed. A process that is killed at any byte leaves the former state
and a `.tmp-` folder that the next start removes. The manifest is the last thing written and the mark that all is there: where
renaming is not one act (some network file systems) a folder that arrived in part has none, or one that it does not agree with.
It also tells a flipped byte, which safetensors does not notice in its payload. Only JSON, text and safetensors are read;
anything else is refused by its looks, without being opened by anything that could run it.
"""

import hashlib
import json
import math
import os
import platform
import re
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langevin.disk import disk_errors, flush, need_space
from langevin.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
MAX_JSON = 16 << 20
MAX_HEADER = 16 << 20
_OLD = "-old-"
_LEFT = re.compile(r"\.tmp-(?P<pid>\d{1,9})-(?P<host>[0-9a-f]{8})?[0-9a-f]{8}-.*", re.DOTALL)
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_writing: set[str] = set()  # what this process is writing just now
_UNSAFE = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".distcp", ".metadata", ".joblib", ".npy"}


def digest(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def free_path(path: Path, *beside: str) -> Path:
    """`NAME-1.png` for `NAME.png`, or the next number at which nothing lies, under the suffixes `beside` neither."""
    k = 1
    while any(path.with_name(f"{path.stem}-{k}{suffix}").exists() for suffix in (path.suffix, *beside)):
        k += 1
    return path.with_name(f"{path.stem}-{k}{path.suffix}")


def refuse_taken(path: Path) -> None:
    """Raise UsageError where something lies at `path`: nothing is ever overwritten."""
    if path.exists():
        raise UsageError("there is something already", where=str(path), help="choose another name")


@contextmanager
def _beside(path: Path, mark: str = "-") -> Iterator[Path]:
    """A name beside `path` for what is not yet whole, or no longer wanted."""
    name = f".tmp-{os.getpid()}-{_HOST}{uuid.uuid4().hex[:8]}{mark}{path.name}"
    _writing.add(name)
    try:
        yield path.with_name(name)
    finally:
        _writing.discard(name)


def _remove(path: Path) -> None:
    """Remove a file or folder as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def write_file(path: Path, content: "bytes | str") -> Path:
    """Write a file, whole or not at all; what was there gives way. Raises DiskError."""
    body = content.encode("utf-8", "replace") if isinstance(content, str) else content
    with disk_errors(path, len(body)), _beside(path) as tmp:
        try:
            with tmp.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            tmp.replace(path)
        except BaseException:
            _remove(tmp)
            raise
        flush(path.parent)
    return path


def write_folder(path: Path, write: Callable[[Path], None], *, size: int = 0, replace: bool = False) -> Path:
    """Make the folder `path` from what `write(folder)` puts into it: all of it or nothing.

    Args:
        path: where; must not be there unless `replace`.
        size: bytes that will be written, to be checked against the disk beforehand.
        replace: whether a folder at `path` gives way. It is put aside first and deleted last.

    Raises:
        DiskError: no room, or the disk refused. What was there before is there still.
    """
    with disk_errors(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        clean(path.parent)
        need_space(path.parent, size)
        if path.exists() and not replace:
            raise FileExistsError(path)
        with _beside(path) as tmp:
            try:
                tmp.mkdir()
                write(tmp)
                _seal(tmp)
                _put(tmp, path)
            except BaseException:
                _remove(tmp)
                raise
    return path


def _seal(folder: Path) -> None:
    """Put the files of a folder on the disk, then its manifest, then the folder."""
    written = sorted(folder.iterdir())
    files = {f.name: {"sha256": digest(f), "size": f.stat().st_size} for f in written}
    for file in written:
        flush(file)
    (folder / MANIFEST).write_text(json.dumps(files, indent=1), "utf-8")
    flush(folder / MANIFEST)
    flush(folder)


def _put(folder: Path, path: Path) -> None:
    """Rename a folder to its place. What is there is put aside first; killed in between, `clean` puts it back."""
    if not path.exists():
        folder.rename(path)
        flush(path.parent)
        return
    with _beside(path, _OLD) as aside:
        path.rename(aside)
        try:
            folder.rename(path)
        except BaseException:
            aside.rename(path)
            raise
        flush(path.parent)
        _remove(aside)


def discard(path: Path) -> None:
    """Remove a folder that is no longer wanted, under another name: half removed it is nothing that could be taken for one."""
    with _beside(path) as gone, suppress(OSError):
        path.rename(gone)
        _remove(gone)


def clean(folder: Path, *, alone: bool = False) -> None:
    """Remove what a killed process left half written in `folder`, and put back a folder that it had only put aside.

    What living processes write stays, and so does everything that is not named as this module names things.

    Args:
        alone: whether nobody else writes here, as in a run whose lock is held: processes of other machines, and others that
            have the number of the killed one by now, are not waited for.
    """
    for left in folder.glob(".tmp-*"):
        ours = _LEFT.fullmatch(left.name)
        if ours is None or left.name in _writing or not (alone or _is_dead(int(ours["pid"]), ours["host"])):
            continue
        former = left.name.partition(_OLD)[2]
        if former and not (folder / former).exists():
            with suppress(OSError):
                left.rename(folder / former)
        else:
            _remove(left)


def _is_dead(pid: int, host: str | None) -> bool:
    """Whether who wrote a name has ended; a process of ours would be writing it now."""
    return host in (None, _HOST) and (pid == os.getpid() or not is_alive(pid))


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine, this one included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def verify(path: Path, needed: Collection[str] = ()) -> None:
    """Compare every file of a folder with its manifest.

    Args:
        needed: files that the manifest must name.

    Raises:
        RefusedError: naming the file that is missing, cut short, changed or cannot be read.
    """
    files = read_json(path / MANIFEST)
    for name in needed:
        if name not in files:
            raise RefusedError(
                f"the manifest does not name {name}", where=str(path / MANIFEST), help="use another copy"
            )
    for name, entry in files.items():
        file = path / name
        if Path(name).name != name or not isinstance(entry, dict):
            raise RefusedError("the manifest names a file outside its folder", where=str(path / MANIFEST))
        try:
            if not file.is_file():
                raise RefusedError("a file is missing", where=str(file), help="use another copy")
            same = file.stat().st_size == entry.get("size") and digest(file) == entry.get("sha256")
        except OSError as error:
            raise _unreadable(file, error) from None
        if not same:
            raise RefusedError(
                "the file is damaged: its sha256 is not the manifest's", where=str(file), help="use another copy"
            )


def _unreadable(file: Path, error: OSError) -> RefusedError:
    return RefusedError(f"the file cannot be read: {error.strerror or error}", where=str(file), help="use another copy")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most 16 MB. Raises RefusedError."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise RefusedError("the file is too large to be what it should be", where=str(path))
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RefusedError(f"there is no {path.name}", where=str(path.parent)) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"not readable JSON: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise RefusedError("not a JSON object", where=str(path))
    return found


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """A safetensors file, written tensor by tensor, so that none but one is copied at a time.

    The library's own writer copies all of them first and tells a full disk in words alone.
    """
    import torch

    header, offset, bodies = {}, 0, sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    for name, tensor in bodies:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _dtype_name(tensor), "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in bodies:
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


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
    try:
        header = _header(path)
        if expected is not None:
            found = {k: (tuple(v.get("shape", ())), v.get("dtype")) for k, v in header.items() if k != "__metadata__"}
            wanted = {k: (tuple(v.shape), _dtype_name(v)) for k, v in expected.items()}
            refuse_others(found, wanted, "the weights do not fit the model", where=str(path))
        return load_file(path)
    except RefusedError:
        raise
    except (SafetensorError, KeyError, ValueError) as error:
        raise RefusedError(f"not a sound safetensors file: {error}", where=str(path)) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def refuse_others(found: Mapping[str, Any], wanted: Mapping[str, Any], what: str, *, where: str = "") -> None:
    """Raise RefusedError, with `what` and the first ten differences, where two mappings are not the same."""
    wrong = [f"{k} missing" for k in wanted if k not in found]
    wrong += [f"{k} not known" for k in found if k not in wanted]
    wrong += [f"{k} is {found[k]}, not {wanted[k]}" for k in wanted if k in found and found[k] != wanted[k]]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise RefusedError(f"{what}: {'; '.join(wrong[:10])}{more}", where=where)


def _dtype_name(tensor: "Tensor") -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name.startswith("float8_"):
        return name.upper().replace("FLOAT8", "F8")
    for long, short in (("bfloat", "BF"), ("float", "F"), ("uint", "U"), ("int", "I"), ("complex", "C")):
        if name.startswith(long):
            return short + name.removeprefix(long)
    return name.upper()


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

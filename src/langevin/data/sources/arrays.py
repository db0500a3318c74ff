"""Arrays: .npy, and .npz with a picture array, labels, captions and further columns. Never unpickles anything.

The members of an .npz are read as streams, so that what is kept in memory is a block and not the file.
"""

import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from langevin.data import cache
from langevin.data.columns import named_columns
from langevin.data.sources.base import Blocks, Encoded, Source
from langevin.data.sources.stream import damage_refused, stream, whole
from langevin.errors import DataError, RefusedError

IMAGE_NAMES = ("images", "image", "x", "arr_0", "data")
_SPLITS = {"train": False, "val": True, "valid": True, "validation": True, "test": True}


def npy(path: Path, root: Path) -> Source:
    """One array of pictures. Raises RefusedError, DataError."""
    blocks = _blocks(lambda: path.open("rb"), str(path), path.stat().st_size)
    _check_pictures(blocks, str(path))
    return Source(
        where=str(path),
        kind="npy",
        names=[f"{path.name}[{i}]" for i in range(blocks.shape[0])],
        pictures=blocks,
        key=cache.file_sha256(path, root),
        squeeze=len(blocks.shape) == 3,
    )


def npz(path: Path, root: Path) -> Source:
    """Pictures with their columns. Raises RefusedError for pickled objects, DataError where no picture array is found."""
    with damage_refused(str(path)), zipfile.ZipFile(path) as archive:
        members = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]

    stored = path.stat().st_size
    arrays = {name: _blocks(partial(_member, path, name), f"{path}:{name}", stored) for name in members}
    pictures: Encoded | Blocks
    kind, found = _picture_members(arrays, str(path))
    rest = {name: blocks for name, blocks in arrays.items() if name not in found}
    key = cache.file_sha256(path, root)
    if kind == "encoded":
        offset = whole(rest.pop("offset"))
        stream = whole(arrays[found[0]])
        if len(offset) < 1 or offset[0] != 0 or offset[-1] != len(stream) or (np.diff(offset) < 0).any():
            raise DataError("`offset` does not divide the encoded pictures", where=str(path))
        count = len(offset) - 1
        pictures = Encoded(lambda i: stream[offset[i] : offset[i + 1]].tobytes())
        names, held_out, squeeze = [f"{found[0]}[{i}]" for i in range(count)], None, False
        columns = {name: whole(blocks) for name, blocks in rest.items() if _is_column(blocks, count)}
    else:
        parts = [arrays[name] for name in found]
        pictures, count = _joined(parts, str(path)), sum(part.shape[0] for part in parts)
        names = [f"{name}[{i}]" for name, part in zip(found, parts, strict=True) for i in range(part.shape[0])]
        squeeze = len(parts[0].shape) == 3
        columns, held_out = _columns_of(found, parts, rest)
    named = named_columns(columns, count, label_names=_label_names(rest), where=str(path))
    return Source(
        where=str(path),
        kind="npz",
        names=names,
        pictures=pictures,
        key=key,
        columns=named.columns,
        classes=named.classes,
        held_out=held_out if held_out is not None else named.held_out,
        notes=named.notes,
        squeeze=squeeze,
    )


@contextmanager
def _member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(name + ".npy") as file:
        yield file


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = read[version](file, max_header_size=10_000)
    if dtype.hasobject:
        raise RefusedError(
            "an array of Python objects can run code when it is loaded, and was not loaded",
            where=where,
            help="save it with a plain dtype: numbers, or text as np.array(list_of_str, dtype=str)",
        )
    return shape, fortran, dtype


def _blocks(opened: Callable[[], AbstractContextManager[IO[bytes]]], where: str, stored: int) -> Blocks:
    with damage_refused(where), opened() as file:
        shape, fortran, dtype = _header(file, where)

    @contextmanager
    def after_header() -> Iterator[IO[bytes]]:
        with opened() as file:
            _header(file, where)
            yield file

    return stream(after_header, shape, dtype, where=where, stored=stored, fortran=fortran)


def _picture_members(arrays: dict[str, Blocks], where: str) -> tuple[str, list[str]]:
    """("array" or "encoded", the members that hold the pictures)."""
    offset = arrays.get("offset")
    if offset is not None and len(offset.shape) == 1:
        streams = [n for n, a in arrays.items() if len(a.shape) == 1 and a.dtype == np.uint8 and n != "offset"]
        named = [n for n in streams if re.match(r"(images?|data)_?(jpe?g|png|webp|bytes)?$", n, re.I)]
        if len(named) == 1:
            return "encoded", named
    drawn = {name: a for name, a in arrays.items() if len(a.shape) in (3, 4) and a.dtype.kind in "buif"}
    lower = {name.lower(): name for name in drawn}
    for name in IMAGE_NAMES:
        if name in lower:
            return "array", [lower[name]]
    if len(drawn) == 1:
        return "array", list(drawn)
    by_split = {name: _split_of(name) for name in drawn}
    if len(drawn) > 1 and all(by_split.values()) and len({stem for stem, _ in by_split.values()}) == 1:
        return "array", sorted(drawn, key=lambda name: _SPLITS[by_split[name][1]])
    listed = ", ".join(f"{name} {a.shape} {a.dtype}" for name, a in arrays.items()) or "nothing"
    raise DataError(
        f"no picture array found among: {listed}",
        where=where,
        help="name it `images`, shape (N, H, W) or (N, H, W, C)",
    )


def _split_of(name: str) -> tuple[str, str] | None:
    """x_train -> (x, train); test_images -> (images, test)."""
    first, _, last = name.lower().partition("_")
    return (last, first) if first in _SPLITS else (first, last) if last in _SPLITS else None


def _joined(parts: list[Blocks], where: str) -> Blocks:
    for part in parts:
        _check_pictures(part, where)
        if part.shape[1:] != parts[0].shape[1:] or part.dtype != parts[0].dtype:
            raise DataError("the parts of the picture array differ in shape or dtype", where=where)
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Blocks(lambda: (block for part in parts for block in part.read()), shape, parts[0].dtype)


def _columns_of(
    found: list[str], parts: list[Blocks], rest: dict[str, Blocks]
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    if len(found) == 1:
        return {n: whole(b) for n, b in rest.items() if _is_column(b, parts[0].shape[0])}, None
    splits = [_split_of(name) for name in found]
    columns: dict[str, list[np.ndarray]] = {}
    for split, part in zip(splits, parts, strict=True):
        for name, blocks in rest.items():
            stem = _split_of(name)
            if stem and split and stem[1] == split[1] and _is_column(blocks, part.shape[0]):
                columns.setdefault(stem[0], []).append(whole(blocks))
    joined = {stem: np.concatenate(pieces) for stem, pieces in columns.items() if len(pieces) == len(parts)}
    held = [np.full(part.shape[0], _SPLITS[split[1]]) for split, part in zip(splits, parts, strict=True) if split]
    return joined, np.concatenate(held)


def _is_column(blocks: Blocks, count: int) -> bool:
    return blocks.shape in ((count,), (count, 1))


def _label_names(rest: dict[str, Blocks]) -> np.ndarray | None:
    for name in ("label_names", "class_names", "classes", "category_names"):
        if name in rest and len(rest[name].shape) == 1:
            return whole(rest[name])
    return None


def _check_pictures(blocks: Blocks, where: str) -> None:
    if len(blocks.shape) not in (3, 4) or 0 in blocks.shape[1:] or blocks.dtype.kind not in "buif":
        raise DataError(
            f"an array of shape {blocks.shape} and dtype {blocks.dtype} holds no pictures",
            where=where,
            help="pictures are numbers of shape (N, H, W) or (N, H, W, C)",
        )


def as_pictures(blocks: Blocks) -> tuple[Callable[[np.ndarray], np.ndarray], str, list[str]]:
    """A function from blocks to (n, H, W, C) in a dtype that is kept, that dtype, and what to say about it."""
    shape, dtype = blocks.shape, blocks.dtype
    notes = []
    channels_first = len(shape) == 4 and shape[1] <= 4 < shape[3]
    if channels_first:
        notes.append(f"channels come first in {shape}: moved last")
    name, scale = dtype.newbyteorder("=").name, 1
    if name not in ("uint8", "uint16", "float32"):
        if dtype.kind == "b":
            kept, scale = "uint8", 255
        elif dtype.kind == "f":
            kept = "float32"
        else:
            parts = [(int(block.min()), int(block.max())) for block in blocks.read() if block.size]
            low, high = min((p[0] for p in parts), default=0), max((p[1] for p in parts), default=0)
            kept = "float32" if low < 0 or high > 65535 else "uint16" if high > 255 else "uint8"
            if kept == "float32" and max(-low, high) > 1 << 24:
                raise DataError(f"whole numbers from {low} to {high} do not fit float32 exactly")
        notes.append(f"{name} is kept as {kept}" + (", False 0 and True 255" if scale == 255 else ""))
        name = kept

    def convert(block: np.ndarray) -> np.ndarray:
        items = block if block.ndim == 4 else block[..., None]
        items = np.moveaxis(items, 1, -1) if channels_first else items
        with np.errstate(over="ignore"):  # what overflows float32 becomes infinite, and is rejected as such
            return items.astype(name) * np.dtype(name).type(scale)

    return convert, name, notes

"""idx files, as MNIST and its kin come: `train-images-idx3-ubyte.gz` with `train-labels-idx1-ubyte.gz`, and t10k-*.

Layout: two zero bytes, one for the type, one for the number of axes, the axes as big-endian uint32, the values.
"""

import gzip
import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from langevin.data import cache
from langevin.data.columns import named_columns
from langevin.data.sources.base import Blocks, Source
from langevin.data.sources.stream import damage_refused, stream, taken, whole
from langevin.errors import DataError, RefusedError
from langevin.words import counted

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NAME = re.compile(r"(?P<part>.*?)(?P<what>images|labels)[-.]idx(?P<axes>\d)-\w+(\.gz)?", re.I)


def is_idx(path: Path) -> bool:
    """A file named like an idx file, or a folder that holds one."""
    if path.is_dir():
        return any(_NAME.fullmatch(file.name) for file in path.iterdir())
    return _NAME.fullmatch(path.name) is not None or path.suffix.lower() == ".idx"


def idx(path: Path, root: Path) -> Source:
    """A folder of idx files, where t10k or test parts are held out, or one file with its labels beside it."""
    folder, files = (path, sorted(path.iterdir())) if path.is_dir() else (path.parent, [path])
    pictures = [file for file in files if (m := _NAME.fullmatch(file.name)) and m["what"].lower() == "images"]
    if not path.is_dir() and not pictures:
        pictures = [path]
    if not pictures:
        raise DataError("idx files, but none of pictures (…images-idx3…)", where=str(path))
    pictures.sort(key=lambda file: (_is_held_out(file), file.name))
    parts = [_blocks(file) for file in pictures]
    for file, part in zip(pictures, parts, strict=True):
        if (
            len(part.shape) not in (3, 4)
            or 0 in part.shape[1:]
            or part.shape[1:] != parts[0].shape[1:]
            or part.dtype != parts[0].dtype
        ):
            raise DataError(f"{part.shape} {part.dtype} is no array of pictures like the first part", where=str(file))
    labels = [_labels(folder, file, part.shape[0]) for file, part in zip(pictures, parts, strict=True)]
    labelled = all(part is not None for part in labels)
    count = sum(part.shape[0] for part in parts)
    columns = {"label": np.concatenate([part for part in labels if part is not None])} if labelled else {}
    named = named_columns(columns, count, where=str(path))
    held_out = np.concatenate([np.full(p.shape[0], _is_held_out(f)) for f, p in zip(pictures, parts, strict=True)])
    notes = () if labelled or not any(p is not None for p in labels) else ("labels of some parts only: not used",)
    return Source(
        where=str(path),
        kind="idx",
        names=[f"{file.name}[{i}]" for file, part in zip(pictures, parts, strict=True) for i in range(part.shape[0])],
        pictures=Blocks(
            lambda: (block for part in parts for block in part.read()), (count, *parts[0].shape[1:]), parts[0].dtype
        ),
        key=hashlib.sha256(" ".join(cache.file_sha256(file, root) for file in pictures).encode()).hexdigest(),
        columns=named.columns,
        classes=named.classes,
        held_out=held_out if held_out.any() and not held_out.all() else None,
        notes=named.notes + notes,
        squeeze=len(parts[0].shape) == 3,
    )


def _is_held_out(file: Path) -> bool:
    return re.search(r"(^|[-_.])(t10k|test|val)([-_.]|$)", file.name.lower()) is not None


def _labels(folder: Path, pictures: Path, count: int) -> np.ndarray | None:
    match = _NAME.fullmatch(pictures.name)
    if match is None:
        return None
    for file in sorted(folder.iterdir()):
        other = _NAME.fullmatch(file.name)
        if other and other["what"].lower() == "labels" and other["part"] == match["part"]:
            blocks = _blocks(file)
            if blocks.shape != (count,):
                raise DataError(f"labels of shape {blocks.shape} for {counted(count, 'picture')}", where=str(file))
            return whole(blocks)
    return None


def _open(file: Path) -> AbstractContextManager[IO[bytes]]:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def _blocks(file: Path) -> Blocks:
    with damage_refused(str(file)), _open(file) as values:
        head = taken(values, 4, str(file))
        if head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 4:
            raise RefusedError("not an idx file", where=str(file))
        shape = tuple(int(n) for n in np.frombuffer(taken(values, 4 * head[3], str(file)), ">u4"))

    @contextmanager
    def after_header() -> Iterator[IO[bytes]]:
        with _open(file) as values:
            taken(values, 4 + 4 * head[3], str(file))
            yield values

    return stream(after_header, shape, np.dtype(_TYPES[head[2]]), where=str(file), stored=file.stat().st_size)

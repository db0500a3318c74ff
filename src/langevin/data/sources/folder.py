"""Picture files: a folder or a zip of them, flat, with a folder a class, or with a metadata table."""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from langevin.data import cache
from langevin.data.columns import named_columns
from langevin.data.dataset import Reject
from langevin.data.pictures import Header, header
from langevin.data.sources.base import Encoded, Source, Unusable
from langevin.data.sources.tree import Tree, folder_tree, zip_tree
from langevin.errors import DataError, nearest
from langevin.words import counted

_SPLITS = {"train": False, "training": False, "test": True, "val": True, "valid": True, "validation": True}
_AT_ONCE = 256
Progress = Callable[[int, int], None]


def folder(path: Path, root: Path, progress: Progress | None = None) -> Source:
    """A folder of pictures. Raises DataError."""
    tree = folder_tree(path)
    files = cache.Files(root, str(path.resolve()))
    known: list[tuple[str, Header | Unusable]] = []
    runs = [tree.pictures[start : start + _AT_ONCE] for start in range(0, len(tree.pictures), _AT_ONCE)]
    with ThreadPoolExecutor(2) as pool:
        for rows in pool.map(lambda names: [_looked_at(tree, files, name) for name in names], runs):
            known += rows
            if progress is not None:
                progress(len(known), 2 * len(tree.pictures))
    files.save()

    def read(i: int) -> bytes:
        """The file as it was when it was looked at, else Unusable."""
        for _ in range(2):
            data = tree.read(tree.pictures[i])
            if hashlib.sha256(data).hexdigest() == known[i][0]:
                return data
        raise Unusable("CHANGED", "changed while it was read, twice")

    key = hashlib.sha256(
        json.dumps([[name, sha256] for name, (sha256, _) in zip(tree.pictures, known, strict=True)]).encode()
    )
    return _source(path, "folder", tree, Encoded(read, [head for _, head in known]), key.hexdigest())


def zipped(path: Path, root: Path) -> Source:
    """A zip of pictures. Raises RefusedError, DataError."""
    tree = zip_tree(path)
    return _source(path, "zip", tree, Encoded(lambda i: tree.read(tree.pictures[i])), cache.file_sha256(path, root))


def _looked_at(tree: Tree, files: cache.Files, name: str) -> tuple[str, Header | Unusable]:
    """sha256 of a file and its header, or why it is unusable; from memory where the file did not change."""
    stat = tree.stat(name)
    if stat is not None and (row := files.get(name, stat)) is not None:
        sha256, (usable, *values) = row
        return sha256, Header(*values) if usable else Unusable(*values)
    try:
        data = tree.read(name)
    except Unusable as reason:
        return reason.code, reason
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        head: Header | Unusable = header(data)
    except Unusable as reason:
        head = reason
    if stat is not None:
        files.put(name, stat, sha256, [True, *head] if isinstance(head, Header) else [False, head.code, head.detail])
    return sha256, head


def _source(path: Path, kind: str, tree: Tree, pictures: Encoded, key: str) -> Source:
    above = _common(tree.pictures)
    columns, notes, rejects = _table(tree, above, str(path))
    folders = [name[len(above) :].split("/")[:-1] for name in tree.pictures]
    tops = {parts[0] for parts in folders if parts}
    if len(tops) > 1 and tops <= _SPLITS.keys() and all(folders) and len({_SPLITS[top] for top in tops}) == 2:
        columns.setdefault("split", np.array([parts[0] for parts in folders], object))
        notes.append(f"the folders {', '.join(sorted(tops))} are taken as the split")
        folders = [parts[1:] for parts in folders]
        tops = {parts[0] for parts in folders if parts}
    if len(tops) > 1 and not any(name in columns for name in ("label", "labels", "category", "class", "y")):
        columns["label"] = np.array([parts[0] if parts else "" for parts in folders], object)
        if outside := sum(not parts for parts in folders):
            notes.append(f"{counted(outside, 'picture lies', 'pictures lie')} outside the class folders: no label")
    named = named_columns(columns, len(tree.pictures), where=str(path))
    return Source(
        where=str(path),
        kind=kind,
        names=tree.pictures,
        pictures=pictures,
        key=key,
        columns=named.columns,
        classes=named.classes,
        held_out=named.held_out,
        rejects=tree.rejects + tuple(rejects),
        ignored=tree.ignored,
        notes=tuple(notes) + named.notes,
    )


def _common(names: tuple[str, ...]) -> str:
    """The folders that all pictures share, with a slash behind: a zip's own top folder names no class."""
    if not names:
        return ""
    first, last = (name.split("/")[:-1] for name in (names[0], names[-1]))  # sorted: what these share, all share
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return "".join(part + "/" for part in first[:shared])


def _table(tree: Tree, above: str, where: str) -> tuple[dict[str, np.ndarray], list[str], list[Reject]]:
    """The columns of the metadata tables, a row a picture, with what to say and which rows name no picture."""
    place = {name: i for i, name in enumerate(tree.pictures)}
    cells: dict[str, list[Any]] = {}
    notes: list[str] = []
    rejects: list[Reject] = []
    refused = {reject.name for reject in tree.rejects}
    seen: set[int] = set()
    repeated = 0
    for table in tree.tables:
        base = table.rpartition("/")[0]
        try:
            rows = _rows(table, tree.read(table), f"{where}/{table}")
        except Unusable as reason:
            raise DataError(f"the table cannot be read: {reason.detail}", where=f"{where}/{table}") from None
        for row in rows:
            file_name = str(row.pop("file_name"))
            name = str(PurePosixPath(base, file_name.replace("\\", "/")))
            if name not in place:
                outside = ".." in PurePosixPath(name).parts or name.startswith("/")
                if name not in refused:
                    code = "UNSAFE_NAME" if outside else "MISSING"
                    rejects.append(Reject(file_name, code, f"named in {table}, but no picture is there"))
                continue
            if place[name] in seen:
                repeated += 1
                continue
            seen.add(place[name])
            for column, value in row.items():
                cells.setdefault(column, [None] * len(place))[place[name]] = value
    if tree.tables:
        if without := len(place) - len(seen):
            notes.append(f"{counted(without, 'picture has', 'pictures have')} no row in the table")
        if repeated:
            notes.append(f"{counted(repeated, 'row names', 'rows name')} a picture again: the first row counts")
    return {name: _column(values) for name, values in cells.items()}, notes, rejects


def _rows(table: str, data: bytes, where: str) -> list[dict[str, Any]]:
    text = data.decode("utf-8-sig", "replace")
    if table.lower().endswith(".csv"):
        limit = csv.field_size_limit(max(len(text), 1 << 17))
        try:
            reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", restval="")
            rows = [{k: v for k, v in row.items() if k} for row in reader]
            fields = list(reader.fieldnames or ())
        except csv.Error as error:
            raise DataError(f"not a table: {error}", where=where) from None
        finally:
            csv.field_size_limit(limit)
    else:
        rows, fields = [], ["file_name"]
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise DataError("not a JSON object", where=f"{where}:{number}")
            if "file_name" not in row:
                fields = list(row)
            rows.append(row)
    if "file_name" not in fields:
        raise DataError("no column `file_name`", where=where, help=nearest("file_name", fields or ["file_name"]))
    return rows


def _column(values: list[Any]) -> np.ndarray:
    """Numbers where all are numbers, else text; what is missing is empty."""
    kinds = {type(value) for value in values}
    if kinds == {int} and all(abs(value) < 2**63 for value in values):
        return np.array(values, np.int64)
    if kinds and kinds <= {int, float}:
        return np.array(values, np.float64)
    out = np.empty(len(values), object)
    out[:] = ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
    return out

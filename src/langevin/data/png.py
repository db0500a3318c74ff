"""What a PNG needs beyond the library: 16 bits in colour, and a recipe kept in the file and read back safely."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from langevin.errors import RefusedError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
_KEY = b"langevin"
_MOST = 1 << 20  # bytes of a recipe
_CHUNKS = 100_000


def encoded(picture: np.ndarray, metadata: dict[str, Any] | None = None) -> bytes:
    """A PNG of a picture (H, W, C), C = 1, 3 or 4, uint8 or uint16, with every level it holds."""
    height, width, channels = picture.shape
    depth = picture.dtype.itemsize * 8
    head = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPES[channels], 0, 0, 0)
    rows = np.ascontiguousarray(picture.astype(picture.dtype.newbyteorder(">"))).view(np.uint8).reshape(height, -1)
    # filter 2 (Up): each byte less the one above it
    filtered = np.vstack([rows[:1], rows[1:] - rows[:-1]])
    lines = np.hstack([np.full((height, 1), 2, np.uint8), filtered])
    chunks = [(b"IHDR", head)]
    if metadata is not None:
        text = json.dumps(metadata, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
        chunks.append((b"iTXt", _KEY + b"\0\0\0\0\0" + text))
    chunks += [(b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def read_metadata(png: str | Path | bytes) -> dict[str, Any]:
    """The recipe in a PNG, {} where it has none. Raises RefusedError for a file that is no PNG or a recipe that is none.

    Walks the chunks without decoding the picture; reads at most 1 MiB of text.
    """
    where = "" if isinstance(png, bytes) else str(png)
    data = png if isinstance(png, bytes) else _bytes(Path(png))
    if not data.startswith(_SIGNATURE):
        raise RefusedError("not a PNG", where=where)
    place = len(_SIGNATURE)
    for _ in range(_CHUNKS):
        if place + 12 > len(data):
            return {}
        (length,), kind = struct.unpack_from(">I", data, place), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + length]
        if kind == b"IEND":
            return {}
        if kind == b"iTXt" and body.startswith(_KEY + b"\0"):
            return _recipe(body[len(_KEY) + 1 :], where)
        place += 12 + length
    raise RefusedError("a PNG of too many chunks", where=where)


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > 1 << 30:
        raise RefusedError("larger than any picture", where=str(path))
    return path.read_bytes()


def _recipe(body: bytes, where: str) -> dict[str, Any]:
    try:
        compressed, method, rest = body[0], body[1], body[2:]
        _, _, rest = rest.split(b"\0", 2)  # language, translated key
        if compressed:
            if method != 0:
                raise ValueError("unknown compression")
            inflate = zlib.decompressobj()
            rest = inflate.decompress(rest, _MOST + 1)
        if len(rest) > _MOST:
            raise ValueError(f"more than {_MOST:,} bytes")
        recipe = json.loads(rest.decode())
        if not isinstance(recipe, dict):
            raise ValueError("not an object")
    except (ValueError, IndexError, RecursionError, zlib.error) as error:
        raise RefusedError(f"the recipe in the picture cannot be read: {error}", where=where) from None
    return recipe

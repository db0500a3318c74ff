"""One encoded picture: first its header, then its pixels, with every level it holds.

What comes out is upright (EXIF), (H, W, C) with C = 1 grey, 3 RGB or 4 RGBA (straight alpha), uint8, uint16 or float32.
Only formats in FORMATS are tried: no reader that starts another program (EPS) or that has no signature.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageSequence

from langevin.data.sources.base import Unusable

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
# fmt: off
SUFFIXES = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif"
))
FOREIGN = frozenset((
    ".heic", ".heif", ".jxl", ".svg", ".psd", ".eps", ".ico", ".tga", ".exr", ".hdr", ".dng", ".cr2", ".cr3",
    ".nef", ".arw", ".raf", ".orf"
))
MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 29
MAX_FRAMES = 1_000
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_BROKEN: tuple[type[Exception], ...] = (  # what decoders raise at damaged files
    OSError, EOFError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, AttributeError, RuntimeError,
    struct.error, zlib.error
)
# fmt: on
_TURNS = {  # EXIF orientation -> the array, upright
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


class Header(NamedTuple):
    """What a picture says of itself before it is decoded. `height` and `width` are those of the upright picture."""

    height: int
    width: int
    colour: bool
    alpha: bool  # may hold transparency
    dtype: str
    frames: int
    turned: bool
    mode: str


def header(data: bytes) -> Header:
    """Reads the header alone. Raises Unusable: NOT_AN_IMAGE, TOO_LARGE, TOO_MANY_PIXELS, BROKEN."""
    with _opened(data) as im:
        try:
            frames = 1 if im.format in ("MPO", "JPEG") else min(getattr(im, "n_frames", 1), MAX_FRAMES)
        except _BROKEN:
            frames = 1  # a damaged later frame; the first one may be whole
        alpha = im.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in im.info
        colour = im.mode not in ("1", "L", "LA", "La", "I", "F") and not im.mode.startswith("I;16")
        if im.mode in ("P", "PA") or (im.mode == "RGBA" and _rawmode(im).startswith("LA")):
            colour = im.mode in ("P", "PA") and not _grey_palette(im)
        dtype = "float32" if im.mode == "F" else "uint16" if _deep(im) or im.mode.startswith("I") else "uint8"
        turn = _orientation(im)
        width, height = im.size if turn < 5 or im.format == "TIFF" else im.size[::-1]  # TIFF: swapped already
        return Header(height, width, colour, alpha, dtype, frames, turn > 1, im.mode)


def decode(data: bytes, *, every_frame: bool = False, at_least: int | None = None) -> Iterator[np.ndarray]:
    """The pixels of the first or of every frame, each (H, W, C). Raises Unusable: also TRUNCATED.

    Args:
        at_least: a JPEG may be decoded at half, quarter or eighth size as long as both its sides stay at least this long.
    """
    with _opened(data) as im:
        try:
            if at_least is not None and im.format in ("JPEG", "MPO"):
                im.draft(None, (at_least, at_least))
            if _deep(im):
                yield _upright(_sixteen(data, im), _orientation(im))
                return
            for k, frame in enumerate(ImageSequence.Iterator(im) if every_frame else [im]):
                if k == MAX_FRAMES:
                    return
                _check_pixels(frame)
                frame.load()
                yield _upright(_pixels(frame), _orientation(frame))
        except Unusable:
            raise
        except Image.DecompressionBombError as error:
            raise Unusable("TOO_MANY_PIXELS", str(error).partition(",")[0]) from None
        except _BROKEN as error:
            raise _damage(error) from None


def _opened(data: bytes) -> ImageFile.ImageFile:
    if not data:
        raise Unusable("NOT_AN_IMAGE", "empty file")
    try:
        im = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable("TOO_MANY_PIXELS", str(error).partition(",")[0]) from None
    except _BROKEN as error:
        if data.startswith(_SIGNATURES) and not data.startswith(b"BM"):
            raise _damage(error) from None
        raise Unusable("NOT_AN_IMAGE", f"starts with {_shown(data)}") from error
    _check_pixels(im)
    return im


def _check_pixels(im: Image.Image) -> None:
    if im.width * im.height > MAX_PIXELS:
        raise Unusable(
            "TOO_MANY_PIXELS", f"{im.width} x {im.height}; at most {MAX_PIXELS // 10**6} million are decoded"
        )


def _damage(error: BaseException) -> Unusable:
    message = str(error).partition("<_io.")[0].strip() or type(error).__name__
    cut = isinstance(error, EOFError) or re.search("truncated|unexpected end|not enough|broken data", message, re.I)
    return Unusable("TRUNCATED" if cut else "BROKEN", message)


def _shown(data: bytes) -> str:
    return repr(data[:16])[1:]


def _rawmode(im: ImageFile.ImageFile) -> str:
    args = im.tile[0].args if im.tile else ""
    return args if isinstance(args, str) else args[0] if args and isinstance(args[0], str) else ""


def _deep(im: ImageFile.ImageFile) -> bool:
    """Colour or transparency with 16 bits a channel, of which the library's own unpackers keep eight."""
    return im.format in ("PNG", "TIFF") and bool(re.fullmatch(r"(RGB|RGBA|RGBX|LA);16[BLN]", _rawmode(im)))


def _sixteen(data: bytes, im: ImageFile.ImageFile) -> np.ndarray:
    """Both bytes of every sample: the stream is decoded twice, once for the high bytes and once for the low ones.

    The unpacker ";16B" keeps the first byte of a sample and ";16L" the second, after the filters were undone.
    """
    layout, order = _rawmode(im).split(";16")
    big = order == "B"  # "N" is the machine's own order, as ";16L" is on every machine this runs on
    if layout == "LA":  # has no ";16L": four bytes of a pixel taken as they are
        pixels = _with_rawmode(data, "RGBA").astype(np.uint16)
        grey, alpha = (pixels[..., k] << 8 | pixels[..., k + 1] for k in (0, 2))
        return np.stack([grey, grey, grey, alpha], -1)
    first, second = (_with_rawmode(data, f"{layout};16{which}").astype(np.uint16) for which in "BL")
    pixels = first << 8 | second if big else second << 8 | first
    if pixels.shape[-1] == 3 and isinstance(key := im.info.get("transparency"), tuple):
        alpha = np.where((pixels == np.array(key, np.uint16)).all(-1), 0, 65535).astype(np.uint16)
        pixels = np.dstack([pixels, alpha])
    return pixels


def _with_rawmode(data: bytes, rawmode: str) -> np.ndarray:
    with _opened(data) as im:
        im.tile = [
            tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:])) for tile in im.tile
        ]
        return np.asarray(im)


def _pixels(im: Image.Image) -> np.ndarray:
    """A loaded frame as (H, W, C)."""
    clear = im.info.get("transparency")
    if im.mode.startswith("I;16") or im.mode == "I":
        levels = np.asarray(im)
        if levels.min() < 0 or levels.max() > 65535:
            raise Unusable("UNSUPPORTED", f"32-bit levels from {levels.min()} to {levels.max()}")
        levels = levels.astype(np.uint16)
        if not isinstance(clear, int):
            return levels[..., None]
        return np.dstack([levels] * 3 + [np.where(levels == clear, 0, 65535).astype(np.uint16)])
    if im.mode == "F":
        return np.asarray(im, np.float32)[..., None]
    if im.mode == "CMYK":
        # Adobe writes ink inverted and the decoder takes every CMYK JPEG for Adobe's; without the marker it is not
        if im.format in ("JPEG", "MPO") and "adobe" not in im.info:
            im = im.point(lambda level: 255 - level)
        return np.asarray(im.convert("RGB"))
    if im.mode in ("LA", "PA", "La", "RGBa", "RGBA") or clear is not None:
        return np.asarray(im.convert("RGBA"))
    if im.mode in ("1", "L") or (im.mode == "P" and _grey_palette(im)):
        return np.asarray(im.convert("L"))[..., None]
    return np.asarray(im.convert("RGB"))


def _grey_palette(im: Image.Image) -> bool:
    """Whether all colours of the palette are grey; does not decode the picture."""
    stored, order = (
        (b"", "RGB")
        if im.palette is None
        else (im.palette.palette, (im.palette.rawmode or im.palette.mode).split(";")[0])
    )
    colours = np.frombuffer(bytes(stored), np.uint8)
    colours = colours[: len(colours) // len(order) * len(order)].reshape(-1, len(order))[:, :3]
    return bool((colours == colours[:, :1]).all())


def _orientation(im: Image.Image) -> int:
    try:
        turn = im.getexif().get(0x0112, 1)
    except _BROKEN:  # damaged EXIF: the pixels may be whole
        return 1
    return turn if isinstance(turn, int) and turn in _TURNS else 1


def _upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    return np.ascontiguousarray(_TURNS[turn](pixels)) if turn in _TURNS else pixels

"""Pictures side by side, large enough to be seen."""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP = 2
_PAPER = 255
_SMALL = 16  # pictures below that side are smoothed when they are enlarged
_SQUARE = 4  # side of a field of the checkerboard behind what is transparent


def as_rgb(items: np.ndarray) -> np.ndarray:
    """(N, H, W[, C]) of any kind to uint8 (N, H, W, 3): 16 bits by their high byte, floats by their extremes,
    transparency on a checkerboard, other numbers of channels by their first three, or the first one."""
    items = np.asarray(items)
    items = items[..., None] if items.ndim == 3 else items
    if items.dtype == np.uint16:
        items = (items >> 8).astype(np.uint8)
    elif items.dtype != np.uint8:
        values = items.astype(np.float32)
        seen = values[np.isfinite(values)]
        low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
        scaled = np.nan_to_num((values - low) / ((high - low) or 1.0), posinf=1.0, neginf=0.0)
        items = np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    if items.shape[-1] == 4:
        alpha = items[..., 3:].astype(np.float32) / 255
        field = np.add.outer(*map(_fields, items.shape[1:3]))
        board = np.where(field % 2, 235, 205)[..., None]
        return np.rint(items[..., :3] * alpha + board * (1 - alpha)).astype(np.uint8)
    return items[..., :3] if items.shape[-1] >= 3 else np.repeat(items[..., :1], 3, -1)


def _fields(length: int) -> np.ndarray:
    return np.arange(length) // _SQUARE


def grid(
    items: np.ndarray, columns: int | None = None, scale: int | None = None, captions: Sequence[str] | None = None
) -> Image.Image:
    """All items (N, H, W[, C]) in rows, each enlarged by a whole number.

    Pictures of 16 pixels and more keep their pixels, as pixel art wants; smaller ones are smoothed (bicubic), since no eye reads
    a digit in 8 x 8 squares. Only what is shown is smoothed, never what is kept.

    Args:
        columns: pictures in a row; None makes the grid about square.
        scale: how many times each is enlarged; None makes small ones at least 64 pixels wide.
        captions: a line under each picture, cut to its width.
    """
    tiles = as_rgb(items)
    count, height, width = tiles.shape[:3]
    scale = scale or max(1, ceil(64 / max(height, width)))
    columns = columns or max(1, ceil(sqrt(count)))
    kind = Image.Resampling.BICUBIC if max(height, width) < _SMALL else Image.Resampling.NEAREST
    height, width = height * scale, width * scale
    line = 14 if captions is not None else 0
    rows = max(1, ceil(count / columns))
    sheet = Image.new(
        "RGB", (_GAP + columns * (width + _GAP), _GAP + rows * (height + line + _GAP)), (_PAPER, _PAPER, _PAPER)
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10) if captions is not None else None
    for k, tile in enumerate(tiles):
        left = _GAP + (k % columns) * (width + _GAP)
        top = _GAP + (k // columns) * (height + line + _GAP)
        sheet.paste(Image.fromarray(tile).resize((width, height), kind), (left, top))
        if captions is not None and font is not None:
            text = "".join(c if c.isprintable() else " " for c in str(captions[k])[:200])
            text = text.encode("utf-8", "replace").decode()
            while text and draw.textlength(text, font) > width:
                text = text[:-1]
            draw.text((left, top + height + 1), text, (60, 60, 60), font)
    return sheet

"""Pictures for the eye: real beside generated, and every sample above the training item nearest to it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from langevin.data.show import as_rgb, grid
from langevin.errors import DataError
from langevin.evaluation.features import Items
from langevin.evaluation.neighbours import nearest

MARGIN, TITLE = 8, 22  # pixels between the halves; height of the line above them
PAPER, INK = (255, 255, 255), (0, 0, 0)


def _alike(a: Items, b: Items) -> tuple[np.ndarray, np.ndarray]:
    """Both as uint8 RGB on one scale, so that a difference in range is seen and not stretched away."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape[1:] != b.shape[1:] or not len(a) or not len(b):
        raise DataError(f"a sheet needs items of one kind, not {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    both = as_rgb(np.concatenate([a, b]))
    return both[: len(a)], both[len(a) :]


def real_against_generated(real: Items, generated: Items, count: int = 36, seed: int = 0) -> Image.Image:
    """Two halves under their names: `count` real items drawn by the seed, and the first `count` generated ones.

    real, generated: (n, H, W[, C]) of one shape and type. Both halves have the same number of tiles.
    """
    count = min(count, len(real), len(generated))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(real))[:count])
    halves = [grid(tiles) for tiles in _alike(np.asarray(real)[drawn], np.asarray(generated)[:count])]
    width, height = halves[0].size
    sheet = Image.new("RGB", (2 * width + MARGIN, height + TITLE), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for title, half, left in zip(("REAL", "GENERATED"), halves, (0, width + MARGIN), strict=True):
        draw.text((left + 3, 3), title, INK, font)
        sheet.paste(half, (left, TITLE))
    return sheet


def generated_above_nearest(generated: Items, train: Items, count: int = 24, columns: int = 8) -> Image.Image:
    """The first `count` generated items in rows, each above its nearest training item with the distance to it.

    A sample that differs from its neighbour in nothing but noise has been copied. Distances as in `neighbours.nearest`.
    """
    made = np.asarray(generated)[:count]
    index, distance = nearest(made, train)
    return above(made, np.asarray(train)[index], [f"real, {d:.3g}" for d in distance], columns)


def above(made: Items, known: Items, captions: Sequence[str], columns: int = 8) -> Image.Image:
    """Items (n, H, W[, C]) in rows, each above another one of the same kind with its caption."""
    made, known = _alike(made, known)
    tiles, below = [], []
    for start in range(0, len(made), columns):
        row = slice(start, start + columns)
        blank = [np.full_like(made[0], 255)] * (columns - len(made[row]))
        tiles += [*made[row], *blank, *known[row], *blank]
        below += ["generated"] * len(made[row]) + [""] * len(blank)
        below += [*captions[row], *([""] * len(blank))]
    return grid(np.stack(tiles), columns, captions=below)


def comparison(
    cells: Sequence[Items], rows: Sequence[str], columns: Sequence[str], captions: Sequence[str]
) -> Image.Image:
    """A table of pictures: row names at the left, column names on top, each cell a few items (n, H, W[, C]) with a caption.

    cells, captions: row by row, len(rows) * len(columns) of them, items of one shape and type.
    """
    split = np.cumsum([len(items) for items in cells])[:-1]
    tiles = [grid(items) for items in np.split(as_rgb(np.concatenate([np.asarray(c) for c in cells])), split)]
    font, (width, height) = ImageFont.load_default(14), tiles[0].size
    left = MARGIN + max(int(font.getlength(name)) for name in rows)
    sheet = Image.new(
        "RGB", (left + MARGIN + len(columns) * (width + MARGIN), TITLE + len(rows) * (height + TITLE)), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for k, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(k, len(columns))
        x, y = left + MARGIN + column * (width + MARGIN), TITLE + row * (height + TITLE)
        sheet.paste(tile, (x, y))
        draw.text((x + 2, y + height + 1), caption, INK, ImageFont.load_default(11))
        if row == 0:
            draw.text((x + 2, 3), columns[column], INK, font)
        if column == 0:
            draw.text((MARGIN, y + height // 2 - 8), rows[row], INK, font)
    return sheet

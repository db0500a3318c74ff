"""One size for pictures of many: which size, and crop, pad or skip to reach it."""

from collections import Counter
from dataclasses import dataclass
from statistics import median_low

import numpy as np
from PIL import Image, ImageColor

from langevin.errors import UsageError, nearest

FITS = ("crop", "pad", "skip")
LARGEST_UNASKED = 64


@dataclass(frozen=True)
class Options:
    """How pictures are brought to one shape.

    Args:
        size: side of the square wanted, or (height, width); None leaves it to the data.
        matte: colour put behind transparent pictures, by name or "#rrggbb"; None keeps their transparency.
        fit: "crop" (short side resized, centre kept), "pad" (long side resized, rest filled) or "skip" (other sizes left out).
        frames: "first" or "all" frames of an animation.
    """

    size: tuple[int, int] | None
    matte: tuple[int, int, int] | None
    fit: str
    frames: str

    @classmethod
    def of(cls, size: int | tuple[int, int] | None, matte: str | None, fit: str, frames: str) -> "Options":
        """Checked options. Raises UsageError."""
        if fit not in FITS:
            raise UsageError(f"unknown fit `{fit}`", where="fit", help=nearest(fit, FITS))
        if frames not in ("first", "all"):
            raise UsageError(f"unknown frames `{frames}`", where="frames", help="known: first, all")
        sides = None if size is None else tuple(size) if isinstance(size, tuple | list) else (size, size)
        if sides is not None and not (len(sides) == 2 and all(isinstance(s, int) and 1 <= s <= 8192 for s in sides)):
            raise UsageError(f"size {size} cannot be", where="size", help="a whole number from 1 to 8192, such as 64")
        try:
            colour = None if matte is None else ImageColor.getrgb(matte)[:3]
        except ValueError:
            raise UsageError(
                f"unknown matte `{matte}`", where="matte", help="a colour's name, or #rrggbb: white, black, #808080"
            ) from None
        return cls(None if sides is None else (sides[0], sides[1]), colour, fit, frames)


def chosen(sizes: Counter[tuple[int, int]], options: Options) -> tuple[tuple[int, int], list[str]]:
    """(height, width) for pictures of these sizes, and what to say about it."""
    if options.size is not None:
        return options.size, []
    usual, count = sizes.most_common(1)[0]
    total = sizes.total()
    if count == total:
        return usual, []
    if options.fit == "skip" or count >= 0.9 * total or (count >= 0.5 * total and max(usual) <= LARGEST_UNASKED):
        return usual, [f"size {usual[1]}x{usual[0]}: {count:,} of {total:,} pictures have it already"]
    short = median_low(sorted(min(size) for size, n in sizes.items() for _ in range(n)))
    side = min(LARGEST_UNASKED, max(8, short // 8 * 8))
    why = f"the short sides' median is {short}" + (f", at most {LARGEST_UNASKED} unasked" if short >= side + 8 else "")
    return (side, side), [f"size {side}x{side} was chosen: the pictures differ in size, {why}; `size` sets another"]


def fitted(picture: np.ndarray, size: tuple[int, int], fit: str, fill: np.ndarray, *, alpha: bool) -> np.ndarray:
    """The picture (H, W, C) at `size`; untouched where it has that size. `fill`: (C,) what padding is made of."""
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    ratios = size[0] / height, size[1] / width
    scale = max(ratios) if fit == "crop" else min(ratios)
    scaled = max(1, round(height * scale)), max(1, round(width * scale))
    if fit == "crop":  # a box of the wanted shape in the middle, resized at once
        box = size[0] / scale, size[1] / scale
        top, left = (height - box[0]) / 2, (width - box[1]) / 2
        return resized(picture, size, (left, top, left + box[1], top + box[0]), alpha=alpha)
    out = np.broadcast_to(fill, (*size, picture.shape[2])).astype(picture.dtype)
    top, left = (size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2
    out[top : top + scaled[0], left : left + scaled[1]] = resized(picture, scaled, alpha=alpha)
    return out


def resized(
    picture: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None, *, alpha: bool
) -> np.ndarray:
    """Lanczos, each channel in float32; colour is weighted by alpha so that what is transparent does not bleed in."""

    def plane(channel: np.ndarray) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(channel, np.float32))
        return np.asarray(image.resize(size[::-1], Image.Resampling.LANCZOS, box, reducing_gap=3.0))

    channels = np.moveaxis(picture, -1, 0)
    if alpha:
        cover = channels[3].astype(np.float32)
        weighted = [plane(colour * cover) for colour in channels[:3]]
        cover = plane(cover)
        out = np.dstack([*(colour / np.maximum(cover, 1e-3) for colour in weighted), cover])
    else:
        out = np.dstack([plane(channel) for channel in channels])
    if picture.dtype.kind == "u":
        out = np.clip(np.rint(out), 0, np.iinfo(picture.dtype).max)
    return out.astype(picture.dtype)


def composed(pictures: np.ndarray, matte: tuple[int, int, int]) -> np.ndarray:
    """RGBA (..., 4) over one colour: RGB (..., 3), rounded to the nearest level."""
    top = int(np.iinfo(pictures.dtype).max)
    alpha, colour = pictures[..., 3:].astype(np.int64), pictures[..., :3].astype(np.int64)
    behind = np.array(matte, np.int64) * (top // 255)
    return ((colour * alpha + behind * (top - alpha) + top // 2) // top).astype(pictures.dtype)

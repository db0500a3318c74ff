"""The pictures of a report, as files in memory: by the names under which the page asks for them."""

import io

import numpy as np
from PIL import Image

from langevin.data.show import grid
from langevin.evaluation import sheets
from langevin.evaluation.copies import Audit
from langevin.evaluation.course import Course
from langevin.evaluation.features import Items

SHOWN, CLOSEST, PHASES = 64, 24, 8
"""Samples in a sheet, items in the sheet of copies, and steps of the way from noise that are shown."""


def beside(real: Items, made: Items, seed: int) -> bytes:
    """Real items beside generated ones."""
    return png(sheets.real_against_generated(real, made, 36, seed))


def samples(items: Items, columns: int | None = None) -> bytes:
    """A sheet."""
    return png(grid(np.asarray(items)[:SHOWN] if columns is None else items, columns))


def closest(made: Items, train: Items, audit: Audit) -> bytes:
    """What was named as copied, the closest first, and after that what comes nearest; each above its training item."""
    others = np.argsort(-audit.closeness, kind="stable")
    named = set(audit.named.tolist())
    order = np.concatenate([audit.named, others[~np.isin(others, audit.named)]])[:CLOSEST]
    captions = [f"{audit.closeness[k]:.2f}{' copy' if k in named else ''}" for k in order.tolist()]
    return png(sheets.above(np.asarray(made)[order], np.asarray(train)[audit.index[order]], captions))


def strip(way: Course) -> bytes:
    """Steps from left to right; for each sample what is held, and below it what is foreseen."""
    held, foreseen, steps = *_pictures(way), way.some(PHASES)
    tiles = [side[k][b] for b in range(held.shape[1]) for side in (held, foreseen) for k in steps]
    return png(grid(np.stack(tiles), len(steps)))


def moving(way: Course) -> bytes:
    """The same as an animation: what is held above what is foreseen."""
    held, foreseen = _pictures(way)
    frames = [grid(np.concatenate(pair), held.shape[1]) for pair in zip(held, foreseen, strict=True)]
    wait = [max(80, 3000 // len(frames))] * (len(frames) - 1) + [2000]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], duration=wait, loop=0, quality=85)
    return out.getvalue()


def png(picture: Image.Image) -> bytes:
    """A PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def _pictures(way: Course) -> tuple[Items, Items]:
    held, foreseen = (x if x.ndim == 5 else x[..., None] for x in (way.held, way.foreseen))
    return held, foreseen

"""From a source to decoded items in the cache: each picture is decoded once, in a stream, and written at once.

The headers of encoded pictures decide the shape (the union of all: RGB where one has colour, RGBA where one has
transparency, 16 bits where one has); then they are decoded to it. Arrays are copied in blocks.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from langevin.data import cache
from langevin.data.fit import Options, chosen, composed, fitted
from langevin.data.layout import Layout, cleared, laid_out
from langevin.data.pictures import Header, header
from langevin.data.sanity import first_broken
from langevin.data.sources.arrays import as_pictures
from langevin.data.sources.base import Blocks, Encoded, Source, Unusable
from langevin.data.writer import Writer
from langevin.words import counted

Progress = Callable[[int, int], None]
T = TypeVar("T")
_WORKERS = 2
_AT_ONCE = 32 << 20  # bytes of decoded pictures between two writes


def gather(source: Source, options: Options, root: Path | None, progress: Progress | None) -> cache.Entry:
    """The decoded items of a source, from the cache where they are there; without one, in memory. Raises DiskError."""
    if root is None:
        with tempfile.TemporaryDirectory() as passing:
            passed = gather(source, options, Path(passing), progress)
            return replace(passed, items=np.array(passed.items))
    wanted = json.dumps([cache.FORMAT, source.key, asdict(options)])
    folder = root / "pictures" / hashlib.sha256(wanted.encode()).hexdigest()[:40]
    if (entry := cache.load(folder)) is not None:
        return entry
    with cache.being_made(folder) as scratch:
        fill = _from_pictures if isinstance(source.pictures, Encoded) else _from_blocks
        with cache.disk_errors(folder):
            fill(source, options, scratch, progress or (lambda done, total: None))
    made = cache.load(folder)
    assert made is not None, "an entry just written must be readable"
    return made


def _from_pictures(source: Source, options: Options, scratch: Path, progress: Progress) -> None:
    pictures, total = source.pictures, 2 * len(source.names)
    assert isinstance(pictures, Encoded)
    headers = list(pictures.headers or ())
    for i in range(len(headers), len(source.names)):
        headers.append(_attempt(lambda i: header(pictures.read(i)), i))
        progress(i + 1, total)
    good = [h for h in headers if isinstance(h, Header)]
    rejects = {i: h for i, h in enumerate(headers) if isinstance(h, Unusable)}
    sizes = Counter((h.height, h.width) for h in good)
    if not good:
        writer = Writer(scratch, Layout(1, 1, 1, "uint8", False))
        writer.close(rejects=_named(rejects), notes=[], sizes={})
        return
    size, notes = chosen(sizes, options)
    if options.fit == "skip":
        for i, h in enumerate(headers):
            if isinstance(h, Header) and (h.height, h.width) != size:
                rejects[i] = Unusable("SKIPPED_SIZE", f"{h.width}x{h.height}")
    dtype, notes = _dtype(good, notes)
    moving = options.frames == "all" and any(h.frames > 1 for h in good)  # later frames may have more than the first
    colour = moving or any(h.colour for h in good)
    alpha = moving or any(h.alpha for h in good)
    tinted = options.matte is not None and len(set(options.matte)) > 1
    keeps_alpha = alpha and options.matte is None
    channels = 4 if keeps_alpha else 3 if colour or (alpha and tinted) else 1
    layout = Layout(*size, channels, dtype, keeps_alpha)
    cache.check_space(scratch, layout.bytes * sum(h.frames if moving else 1 for h in good))

    def decoded(i: int) -> list[np.ndarray]:
        return list(laid_out(pictures.read(i), headers[i], layout, options))

    writer, transparent = Writer(scratch, layout), 0
    wanted = (i for i in range(len(headers)) if i not in rejects)
    with ThreadPoolExecutor(_WORKERS) as pool:
        while run := list(islice(wanted, max(2, min(256, _AT_ONCE // layout.bytes)))):
            items: list[np.ndarray] = []
            sources: list[int] = []
            frames: list[int] = []
            for i, got in zip(run, pool.map(partial(_attempt, decoded), run), strict=True):
                if isinstance(got, Unusable):
                    rejects[i] = got
                    continue
                transparent += layout.alpha and any((item[..., 3] < layout.top).any() for item in got)
                items += got
                sources += [i] * len(got)
                frames += range(len(got))
            if items:
                writer.append(np.stack(items), sources, frames)
            progress(len(headers) + run[-1] + 1, total)
    kept = [h for i, h in enumerate(headers) if isinstance(h, Header) and i not in rejects]
    if layout.alpha and not transparent:
        writer = writer.without_alpha(3 if moving or any(h.colour for h in kept) else 1)
    writer.close(
        rejects=_named(rejects),
        sizes={f"{w}x{h}": n for (h, w), n in sorted(sizes.items())},
        notes=notes + _told(kept, size, options, transparent, writer.layout),
    )


def _attempt(work: Callable[[int], T], i: int) -> T | Unusable:
    try:
        return work(i)
    except Unusable as reason:
        return reason


def _named(rejects: dict[int, Unusable]) -> list[list[Any]]:
    return [[i, why.code, why.detail] for i, why in sorted(rejects.items())]


def _dtype(headers: list[Header], notes: list[str]) -> tuple[str, list[str]]:
    found = Counter(h.dtype for h in headers)
    dtype = "float32" if "float32" in found else "uint16" if "uint16" in found else "uint8"
    if len(found) > 1:
        notes = [*notes, f"bit depths differ ({', '.join(f'{n:,} {d}' for d, n in found.items())}): all become {dtype}"]
    return dtype, notes


def _told(
    headers: list[Header], size: tuple[int, int], options: Options, transparent: int, layout: Layout
) -> list[str]:
    """What was done to the pictures, in words."""
    said = {
        f"resized to {size[1]}x{size[0]} ({options.fit})": sum((h.height, h.width) != size for h in headers),
        "enlarged": sum(h.height < size[0] and h.width < size[1] for h in headers),
        "more than twice as long as wide, or as wide as long": sum(
            max(h.height, h.width) > 2 * min(h.height, h.width) and (h.height, h.width) != size for h in headers
        ),
        "turned upright by the EXIF orientation": sum(h.turned for h in headers),
        "animated: every frame is an item" if options.frames == "all" else "animated: first frame only": sum(
            h.frames > 1 for h in headers
        ),
        "CMYK, turned into RGB without a colour profile": sum(h.mode == "CMYK" for h in headers),
        f"transparent, put on {options.matte}": options.matte is not None and sum(h.alpha for h in headers),
        "with real transparency": transparent,
    }
    if layout.channels > 1:
        said["grey among colour ones"] = sum(not h.colour for h in headers) if any(h.colour for h in headers) else 0
    return [f"{counted(count, 'picture')} {what}" for what, count in said.items() if count]


def _from_blocks(source: Source, options: Options, scratch: Path, progress: Progress) -> None:
    """Blocks of an array as (n, H, W, C) in a dtype that is kept exactly."""
    pictures, total = source.pictures, len(source.names)
    assert isinstance(pictures, Blocks)
    convert, dtype, notes = as_pictures(pictures)
    alpha: bool | None = None
    writer: Writer | None = None
    rejects: dict[int, Unusable] = {}
    done = hidden = 0
    for block in pictures.read():
        items = convert(block)
        if alpha is None:
            alpha = items.shape[-1] == 4 and dtype != "float32" and (options.matte is not None or _looks_clear(items))
        usable = np.isfinite(items).all((1, 2, 3))
        rejects |= {done + int(i): Unusable("NOT_FINITE", first_broken(items[i])) for i in np.flatnonzero(~usable)}
        sources = [done + int(i) for i in np.flatnonzero(usable)]
        found, items = items.shape[1:3], items[usable]
        if alpha and options.matte is not None:
            items = composed(items, options.matte)
        elif alpha:
            seen, items = items, cleared(items)
            hidden += int((seen != items).any(-1).sum())
        keeps_alpha = bool(alpha) and options.matte is None
        size = options.size or (found[0], found[1])
        fill = np.zeros(items.shape[-1])
        if size != found:
            items = np.stack([fitted(item, size, options.fit, fill, alpha=keeps_alpha) for item in items])
        if writer is None:
            layout = Layout(*size, items.shape[-1], dtype, keeps_alpha)
            cache.check_space(scratch, total * layout.bytes)
            writer = Writer(scratch, layout)
        writer.append(items, sources, [0] * len(items))
        done += len(block)
        progress(done, total)
    if writer is None:
        writer, found, size = Writer(scratch, Layout(1, 1, 1, "uint8", False)), (0, 0), (0, 0)
    if alpha:
        notes.append(f"the fourth channel is transparency{f', put on {options.matte}' if options.matte else ''}")
    elif writer.layout.channels == 4:
        notes.append("the fourth channel is a plain one: its values are not those of transparency")
    if hidden:
        notes.append(
            f"{counted(hidden, 'fully transparent pixel')} had a colour, now 0: what cannot be seen is nothing to learn"
        )
    if size != found:
        notes.append(
            f"{counted(done, 'picture')} resized from {found[1]}x{found[0]} to {size[1]}x{size[0]} ({options.fit})"
        )
    sizes = {f"{found[1]}x{found[0]}": done} if done else {}
    writer.close(rejects=_named(rejects), sizes=sizes, notes=notes)


def _looks_clear(items: np.ndarray) -> bool:
    """Whether a fourth channel is alpha: it is full somewhere, and nearly all of it is either full or empty."""
    alpha = items[..., 3]
    full, empty = alpha == np.iinfo(alpha.dtype).max, alpha == 0
    return bool(full.any() and (full | empty).mean() > 0.5)

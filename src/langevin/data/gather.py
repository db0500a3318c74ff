"""From a source to decoded items in the cache: each picture is decoded once, in a stream, and written at once.

The headers of encoded pictures decide the shape (the union of all: RGB where one has colour, RGBA where one has
transparency, 16 bits where one has); then they are decoded to it. Arrays are copied in blocks.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from langevin.data import cache, duplicates
from langevin.data.fit import Options, chosen, composed, fitted
from langevin.data.pictures import Header, decode, header
from langevin.data.sources.arrays import as_pictures
from langevin.data.sources.base import Blocks, Encoded, Source, Unusable

Progress = Callable[[int, int], None]
_WORKERS = 2


@dataclass(frozen=True)
class Layout:
    """The shape that all items get. `alpha`: the last of four channels is transparency."""

    height: int
    width: int
    channels: int
    dtype: str
    alpha: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


def gather(source: Source, options: Options, root: Path | None, progress: Progress | None) -> cache.Entry:
    """The decoded items of a source, from the cache where they are there; without one, in memory. Raises DiskError."""
    if root is None:
        with tempfile.TemporaryDirectory() as passing:
            entry = gather(source, options, Path(passing), progress)
            return replace(entry, items=np.array(entry.items))
    wanted = json.dumps([cache.FORMAT, source.key, asdict(options)])
    folder = root / "pictures" / hashlib.sha256(wanted.encode()).hexdigest()[:40]
    if (entry := cache.load(folder)) is not None:
        return entry
    with cache.being_made(folder) as scratch:
        fill = _from_pictures if isinstance(source.pictures, Encoded) else _from_blocks
        with cache.disk_errors(folder):
            fill(source, options, scratch, progress or (lambda done, total: None))
    entry = cache.load(folder)
    assert entry is not None, "an entry just written must be readable"
    return entry


class _Writer:
    """Writes items to items.bin and keeps what is to be known of them."""

    def __init__(self, scratch: Path, layout: Layout) -> None:
        self.layout, self.scratch = layout, scratch
        self.each = int(np.prod(layout.shape)) * np.dtype(layout.dtype).itemsize
        self._path = scratch / "items.bin"
        self._path.touch()
        self._rows: list[np.ndarray] = []
        self._thumbs: list[np.ndarray] = []
        self._sums: list[np.ndarray] = []
        self.count = 0

    def append(self, items: np.ndarray, sources: Sequence[int], frames: Sequence[int]) -> None:
        """Items (n, H, W, C) in the layout's dtype; which source items they are, and which frames of them."""
        items = np.ascontiguousarray(items)
        assert items.shape[1:] == self.layout.shape
        assert items.dtype == self.layout.dtype
        for start in range(0, len(items), step := max(1, (4 << 20) // self.each)):
            run = slice(start, start + step)
            self._append(items[run], sources[run], frames[run])

    def _append(self, items: np.ndarray, sources: Sequence[int], frames: Sequence[int]) -> None:
        rows = np.zeros(len(items), cache.ROW)
        rows["source"], rows["frame"] = sources, frames
        rows["digest"] = [np.frombuffer(hashlib.sha256(item).digest(), np.uint8) for item in items]
        self._rows.append(rows)
        if self.count < duplicates.MOST:
            self._thumbs.append(duplicates.thumbnails(items, alpha=self.layout.alpha))
        values = items.reshape(-1, items.shape[-1]).astype(np.float64)
        self._sums.append(np.stack([values.min(0), values.max(0), values.sum(0), np.square(values).sum(0)]))
        with self._path.open("ab") as file:
            file.write(items.data)
        self.count += len(items)

    def without_alpha(self, channels: int) -> "_Writer":
        """A writer that holds the same items with their first 1 or 3 channels alone."""
        wide = self._path.rename(self.scratch / "wide.bin")
        writer = _Writer(self.scratch, replace(self.layout, channels=channels, alpha=False))
        rows = np.concatenate(self._rows)
        items = np.memmap(wide, self.layout.dtype, "r", shape=(len(rows), *self.layout.shape))
        for start in range(0, len(rows), 1024):
            run = slice(start, start + 1024)
            writer.append(items[run, ..., :channels], rows["source"][run], rows["frame"][run])
        wide.unlink()
        return writer

    def close(self, **facts: Any) -> None:
        layout, shape = self.layout, self.layout.shape
        rows = np.concatenate([np.zeros(0, cache.ROW), *self._rows])
        facts |= {"shape": list(shape), "dtype": layout.dtype, "alpha": layout.alpha}
        if self.count:
            sums, pixels = np.stack(self._sums), self.count * shape[0] * shape[1]
            mean = sums[:, 2].sum(0) / pixels
            facts["low"], facts["high"] = sums[:, 0].min(0).tolist(), sums[:, 1].max(0).tolist()
            facts["mean"] = mean.tolist()
            facts["std"] = np.sqrt(np.maximum(sums[:, 3].sum(0) / pixels - mean**2, 0)).tolist()
            looks = np.concatenate(self._thumbs) if self.count <= duplicates.MOST else None
            facts["alike"] = duplicates.alike(rows["digest"], looks)
        cache.finish(self.scratch, rows, facts)


def _from_pictures(source: Source, options: Options, scratch: Path, progress: Progress) -> None:
    pictures, total = source.pictures, 2 * len(source.names)
    assert isinstance(pictures, Encoded)
    headers = list(pictures.headers or ())
    for i in range(len(headers), len(source.names)):
        headers.append(_attempt(lambda i=i: header(pictures.read(i))))
        progress(i + 1, total)
    good = [h for h in headers if isinstance(h, Header)]
    rejects = {i: h for i, h in enumerate(headers) if isinstance(h, Unusable)}
    sizes = Counter((h.height, h.width) for h in good)
    if not good:
        writer = _Writer(scratch, Layout(1, 1, 1, "uint8", False))
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
    each = int(np.prod(layout.shape)) * np.dtype(dtype).itemsize
    cache.check_space(scratch, each * sum(h.frames if moving else 1 for h in good))

    def decoded(i: int) -> list[np.ndarray] | Unusable:
        return _attempt(lambda: [*_laid_out(pictures.read(i), headers[i], layout, options)])

    writer, transparent = _Writer(scratch, layout), 0
    wanted = (i for i in range(len(headers)) if i not in rejects)
    with ThreadPoolExecutor(_WORKERS) as pool:
        while run := list(islice(wanted, max(2, min(256, (32 << 20) // each)))):
            items, sources, frames = [], [], []
            for i, got in zip(run, pool.map(decoded, run), strict=True):
                if isinstance(got, Unusable):
                    rejects[i] = got
                    continue
                transparent += layout.alpha and any((item[..., 3] < _top(dtype)).any() for item in got)
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


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
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


def _laid_out(data: bytes, head: Header, layout: Layout, options: Options) -> Iterator[np.ndarray]:
    """A picture's frames in the layout: channels, depth and size."""
    size = layout.height, layout.width
    resize = (head.height, head.width) != size
    every = options.frames == "all" and head.frames > 1
    for picture in decode(data, every_frame=every, at_least=2 * max(size) if resize else None):
        if not np.isfinite(picture).all():
            raise Unusable("NOT_FINITE", "nan or infinite levels")
        picture = _deepened(picture, layout.dtype)
        clear = picture.shape[2] == 4
        matte = options.matte or (0, 0, 0)
        fill = np.array([0] * 4 if clear else matte) * (_top(layout.dtype) // 255)
        picture = fitted(picture, size, options.fit, fill[: picture.shape[2]], alpha=clear)
        if clear and not layout.alpha:
            picture = composed(picture, matte)
        channels = picture.shape[2]
        if channels < layout.channels:
            full = np.full((*size, 1), _top(layout.dtype), layout.dtype)
            picture = np.dstack([picture] * (3 if channels == 1 else 1) + [full] * layout.alpha)
        elif channels > layout.channels:  # grey in three channels, from a grey picture put on a grey matte
            picture = picture[..., :1]
        yield cleared(picture) if layout.alpha else picture


def cleared(pictures: np.ndarray) -> np.ndarray:
    """RGBA with colour 0 wherever alpha is 0: what cannot be seen is nothing to learn."""
    return np.where(pictures[..., 3:] == 0, np.zeros((), pictures.dtype), pictures)


def _top(dtype: str) -> int:
    return {"uint8": 255, "uint16": 65535}.get(dtype, 1)


def _deepened(picture: np.ndarray, dtype: str) -> np.ndarray:
    """8 bits as 16: times 257, so that white stays white and all levels stay apart."""
    if picture.dtype == dtype:
        return picture
    if dtype == "float32":
        raise Unusable("UNSUPPORTED", "whole-number levels among pictures of floating-point levels")
    return picture.astype(np.uint16) * np.uint16(257)


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
        "turned upright by their EXIF orientation": sum(h.turned for h in headers),
        "animated: every frame is an item" if options.frames == "all" else "animated: first frame only": sum(
            h.frames > 1 for h in headers
        ),
        "CMYK, turned into RGB without a colour profile": sum(h.mode == "CMYK" for h in headers),
        f"transparent, put on {options.matte}": options.matte is not None and sum(h.alpha for h in headers),
        "with real transparency": transparent,
    }
    if layout.channels > 1:
        said["grey among colour ones"] = sum(not h.colour for h in headers) if any(h.colour for h in headers) else 0
    return [f"{count:,} pictures {what}" for what, count in said.items() if count]


def _from_blocks(source: Source, options: Options, scratch: Path, progress: Progress) -> None:
    """Blocks of an array as (n, H, W, C) in a dtype that is kept exactly."""
    pictures, total = source.pictures, len(source.names)
    assert isinstance(pictures, Blocks)
    convert, dtype, notes = as_pictures(pictures)
    alpha, writer, rejects, done, hidden = None, None, {}, 0, 0
    for block in pictures.read():
        items = convert(block)
        if alpha is None:
            alpha = items.shape[-1] == 4 and dtype != "float32" and (options.matte is not None or _looks_clear(items))
        usable = np.isfinite(items).all((1, 2, 3))
        rejects |= {done + int(i): Unusable("NOT_FINITE", "nan or infinite values") for i in np.flatnonzero(~usable)}
        sources = [done + int(i) for i in np.flatnonzero(usable)]
        found, items = items.shape[1:3], items[usable]
        if alpha and options.matte is not None:
            items = composed(items, options.matte)
        elif alpha:
            seen, items = items, cleared(items)
            hidden += int((seen != items).any(-1).sum())
        keeps_alpha = alpha and options.matte is None
        size = options.size or found
        fill = np.zeros(items.shape[-1])
        if size != found:
            items = np.stack([fitted(item, size, options.fit, fill, alpha=keeps_alpha) for item in items])
        if writer is None:
            layout = Layout(*size, items.shape[-1], dtype, keeps_alpha)
            cache.check_space(scratch, total * int(np.prod(layout.shape)) * np.dtype(dtype).itemsize)
            writer = _Writer(scratch, layout)
        writer.append(items, sources, [0] * len(items))
        done += len(block)
        progress(done, total)
    if writer is None:
        writer, found, size = _Writer(scratch, Layout(1, 1, 1, "uint8", False)), (0, 0), (0, 0)
    if alpha:
        notes.append(f"the fourth channel is transparency{f', put on {options.matte}' if options.matte else ''}")
    elif writer.layout.channels == 4:
        notes.append("the fourth channel is a plain one: its values are not those of transparency")
    if hidden:
        notes.append(
            f"{hidden:,} fully transparent pixels had a colour, now 0: what cannot be seen is nothing to learn"
        )
    if size != found:
        notes.append(f"{done:,} pictures resized from {found[1]}x{found[0]} to {size[1]}x{size[0]} ({options.fit})")
    sizes = {f"{found[1]}x{found[0]}": done} if done else {}
    writer.close(rejects=_named(rejects), sizes=sizes, notes=notes)


def _looks_clear(items: np.ndarray) -> bool:
    """Whether a fourth channel is alpha: it is full somewhere, and nearly all of it is either full or empty."""
    alpha = items[..., 3]
    full, empty = alpha == np.iinfo(alpha.dtype).max, alpha == 0
    return bool(full.any() and (full | empty).mean() > 0.5)

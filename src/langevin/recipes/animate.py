"""RUN/training.gif: the sheets of samples that a run drew as it went, one after the other, from seeds that never change."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from langevin import store
from langevin.errors import UsageError
from langevin.recipes import folders
from langevin.recipes.watch import Event, Finished

NAME = "training.gif"
MOST_FRAMES = 60
MOST_BYTES = 8 << 20
SIDE = 640
"""The longest side of a frame, at first; smaller where the file would grow too large."""
FRAME_MS, LAST_MS = 400, 2500
_LINE = 18


def animation(event: Event) -> None:
    """A watcher: makes the animation of a run that is finished."""
    if isinstance(event, Finished) and sheets(event.run.path) and not (event.run.path / NAME).exists():
        _write(event.run.path, event.run.path / NAME, event.step)


def animate(run: "str | Path") -> Path:
    """Make the animation of a run, finished or not, and give its path; one that is there already stays.

    Raises:
        UsageError: no run, or none that has drawn a sheet.
    """
    run = Path(run)
    folders.found(run, "config.yaml", "such run")
    if not sheets(run):
        raise UsageError("this run has drawn no previews", where=str(run), help="longer runs draw some as they go")
    target, finished = run / NAME, (run / "figures.json").is_file()  # its name is kept for the whole run's
    return _write(run, target if finished and not target.exists() else store.free_path(target), None)


def sheets(run: Path) -> list[tuple[int, Path]]:
    """(step, file) of the sheets that a run drew, in the order of their steps, whatever the files' times."""
    found = ((p.stem.removeprefix("step-"), p) for p in (run / "previews").glob("step-*.png"))
    return sorted((int(digits), path) for digits, path in found if digits.isdecimal() and _is_sound(path))


def _is_sound(path: Path) -> bool:
    """Whether it is a picture; one that is damaged must not take the rest with it."""
    try:
        with Image.open(path) as opened:
            opened.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def _write(run: Path, target: Path, last_step: int | None) -> Path:
    found = sheets(run)
    count = min(len(found), MOST_FRAMES)
    spread = [found[round(k * (len(found) - 1) / max(1, count - 1))] for k in range(count)]
    frames = [(f"step {step:,}", path) for step, path in spread]
    if _is_sound(run / "samples.png"):  # the published model, from the same seeds
        frames.append((f"step {last_step:,}, the end" if last_step else "the end", run / "samples.png"))
    side = SIDE
    while len(body := _gif(frames, side)) > MOST_BYTES and side > 80:
        side = int(side * max(0.5, min(0.9, math.sqrt(MOST_BYTES / len(body)))))
    store.write_file(target, body)
    return target


def _gif(frames: list[tuple[str, Path]], side: int) -> bytes:
    pictures = [_frame(path, text, side, k / max(1, len(frames) - 1)) for k, (text, path) in enumerate(frames)]
    if all(
        (np.ptp(np.asarray(p), axis=-1) == 0).all() for p in pictures
    ):  # nothing but greys: there is room for all of them
        flat = [p.convert("L") for p in pictures]
    else:
        palette = _palette(pictures)
        flat = [p.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for p in pictures]
    times = [FRAME_MS] * (len(flat) - 1) + [LAST_MS]
    out = io.BytesIO()
    flat[0].save(out, "GIF", save_all=True, append_images=flat[1:], duration=times, loop=0, optimize=False)
    return out.getvalue()


def _frame(path: Path, text: str, side: int, share: float) -> Image.Image:
    """A sheet, and beneath it the step and a bar that grows from the first frame to the last."""
    with Image.open(path) as opened:
        sheet = opened.convert("RGB")
    if (longest := max(sheet.size)) > side:
        small = (max(1, round(n * side / longest)) for n in sheet.size)
        sheet = sheet.resize(tuple(small), Image.Resampling.LANCZOS)
    width, height = sheet.size
    frame = Image.new("RGB", (width, height + _LINE), (255, 255, 255))
    frame.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(frame)
    draw.text((4, height + 2), text, (60, 60, 60), ImageFont.load_default(11))
    draw.rectangle((0, height, round(share * (width - 1)), height + 1), (60, 60, 60))
    return frame


def _palette(pictures: list[Image.Image]) -> Image.Image:
    """256 colours for all frames, so that nothing flickers: those of the first, the middle and the last side by side."""
    some = [pictures[0], pictures[len(pictures) // 2], pictures[-1]]
    strip = Image.new("RGB", (sum(p.width for p in some), max(p.height for p in some)), (255, 255, 255))
    left = 0
    for picture in some:
        strip.paste(picture, (left, 0))
        left += picture.width
    return strip.quantize(256, Image.Quantize.MEDIANCUT)

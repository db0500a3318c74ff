"""Pictures of a run: the first batch as the network is shown it, the course as an animation, and its pace."""

import json
import mmap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langevin.data.codec.pixels import Pixels
from langevin.data.show import grid
from langevin.errors import UsageError
from langevin.recipes import animate as animations
from langevin.recipes.animate import animate, sheets
from langevin.recipes.console import Console
from langevin.recipes.first import sheet
from langevin.recipes.pace import Pace, memory, words
from langevin.recipes.train import train
from langevin.recipes.watch import Began
from tests.models import digits_like

QUICK = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}", "batch": "12"}


def test_the_first_batch_is_shown_as_the_codec_gives_it_back_with_labels_and_under_noise(in_tmp, monkeypatch):
    images, labels = digits_like(130)
    np.savez("set.npz", images=images, labels=labels)
    began = []
    monkeypatch.setattr(
        "langevin.recipes.train.first_batch", lambda e: began.append(e) if isinstance(e, Began) else None
    )
    run = train("set.npz", steps=1, settings=QUICK, console=Console("quiet"))
    (event,) = began
    batch = event.feed.at(0)
    picture = np.asarray(sheet(event.model, batch, event))
    clean = images[batch.rows[:8]][..., None]
    names = [(*event.model.classes, "(no label)")[k] for k in batch.cond["label"][:8].tolist()]
    alone = np.asarray(grid(clean, columns=8, captions=names))
    height = alone.shape[0] - 2
    assert np.array_equal(picture[:height], alone[:height])  # the upper row is the data, bit for bit
    rows = [picture[k * height : (k + 1) * height] for k in range(4)]
    apart = [np.abs(row[2:66].astype(float) - rows[0][2:66]).mean() for row in rows]
    assert apart[0] == 0 < apart[1] < apart[2] < apart[3]
    assert isinstance(event.model.codec, Pixels)
    assert run.path.is_dir()


def test_a_run_draws_its_first_batch_and_never_again(in_tmp):
    np.save("set.npy", digits_like(120)[0])
    run = train("set.npy", steps=2, settings=QUICK, console=Console("quiet"))
    with Image.open(run.path / "first-batch.png") as picture:
        assert picture.size == (8 * 66 + 2, 4 * 80 + 2)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for row in (r for r in rows if "loss" in r):
        assert row["clock"]["images_per_s"] > 0 and row["clock"]["rss"] > 10e6


def _run(folder: Path, steps: list[int], side: int = 64) -> Path:
    """A run's folder with previews that are all of one grey, brighter with the step."""
    (folder / "previews").mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    for k, step in enumerate(steps):
        Image.new("RGB", (side, side), (10 * k,) * 3).save(folder / "previews" / f"step-{step:09d}.png")
    return folder


def test_an_animation_has_the_sheets_in_the_order_of_their_steps_and_the_model_last(tmp_path):
    run = _run(tmp_path / "r", [5, 20, 100, 3000])
    Image.new("RGB", (64, 64), (200,) * 3).save(run / "samples.png")
    assert [step for step, _ in sheets(run)] == [5, 20, 100, 3000]
    (run / "previews/step-000000050.png").write_bytes(
        (run / "previews/step-000000020.png").read_bytes()[:60]
    )  # cut short
    assert animate(run) == run / "training-1.gif"  # the other name is for the whole run
    (run / "figures.json").write_text("{}")
    made = animate(run)
    assert made == run / "training.gif" and animate(run) == run / "training-2.gif"
    with Image.open(made) as film:
        assert film.n_frames == 5
        greys, times = [], []
        for k in range(5):
            film.seek(k)
            times.append(film.info["duration"])
            greys.append(film.convert("RGB").getpixel((20, 20))[0])
    assert greys == [0, 10, 20, 30, 200]
    assert times[-1] > 2 * times[0]


def test_many_large_sheets_become_a_small_file(tmp_path, monkeypatch):
    monkeypatch.setattr(animations, "MOST_BYTES", 200_000)
    run = _run(tmp_path / "r", list(range(1, 91)), side=8)
    rng = np.random.default_rng(0)
    for path in (run / "previews").glob("*.png"):
        Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(path)
    made = animate(run)
    with Image.open(made) as film:
        assert film.n_frames == animations.MOST_FRAMES
        assert max(film.size) >= 64
    assert made.stat().st_size <= 200_000 or max(film.size) < 100


def test_no_run_and_no_previews_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="no such run"):
        animate(tmp_path / "none")
    with pytest.raises(UsageError, match="no previews"):
        animate(_run(tmp_path / "r", []))


def test_the_pace_is_that_of_the_last_seconds_without_pauses():
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    for _ in range(100):  # 32 images every tenth of a second
        now[0] += 0.1
        clock = pace(32)
    assert clock["images_per_s"] == pytest.approx(320, rel=0.02)
    now[0] += 60.0  # a look
    pace.pause()
    for _ in range(100):
        now[0] += 0.2
        clock = pace(32)
    assert clock["images_per_s"] == pytest.approx(160, rel=0.02)
    assert words({"images_per_s": 1234.4, "rss": 8.1e8}) == "1,234 items/s  810 MB"
    assert words({"images_per_s": 2.0, "rss": 1.0, "cuda_peak": 3e9}) == "2 items/s  3,000 MB"


def test_memory_counts_what_is_taken():
    size, before = 64 << 20, memory()["rss"]
    with mmap.mmap(-1, size) as taken:  # no heap that was freed before is used again
        taken.write(b"1" * size)
        assert memory()["rss"] - before > 0.9 * size

"""Equal and alike pictures: found, counted, and never on both sides of the split."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from langevin import data
from langevin.data import duplicates
from langevin.data.audit import report

RANDOM = np.random.default_rng(0)


def drawings(count: int, size: int = 32) -> np.ndarray:
    """Pictures as different as people's: a ground, some shapes."""
    out = []
    for k in range(count):
        r = np.random.default_rng(k)
        im = Image.new("RGB", (size, size), tuple(r.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(im)
        for _ in range(6):
            box = np.sort(r.integers(0, size, (2, 2)), 0).ravel().tolist()
            colour = tuple(r.integers(0, 256, 3).tolist())
            (draw.ellipse if r.random() < 0.5 else draw.rectangle)(box, fill=colour)
        out.append(np.asarray(im))
    return np.stack(out)


def recompressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(out))


def opened(items: np.ndarray, tmp_path: Path, **columns: np.ndarray) -> data.Dataset:
    np.savez(tmp_path / "set.npz", images=items, **columns)
    return data.open(tmp_path / "set.npz", cache=tmp_path / "cache")


def test_equal_pictures_stay_on_one_side(tmp_path: Path) -> None:
    base = RANDOM.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    source = RANDOM.integers(0, 300, 1200)
    got = opened(base[source], tmp_path)
    assert got.audit.exact_duplicates == 1200 - len(np.unique(source))
    for k in np.unique(source):
        assert len(set(got.held_out[source == k])) == 1
    assert got.audit.leaks == 0
    assert 0.05 < got.held_out.mean() < 0.15


def test_the_share_held_out_is_that_asked_for(tmp_path: Path) -> None:
    items = RANDOM.integers(0, 256, (9000, 4, 4, 1), dtype=np.uint8)
    share = opened(items, tmp_path).held_out.mean()
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 9000)
    digests = RANDOM.integers(0, 256, (200_000, 32), dtype=np.uint8)
    none = np.zeros((0, 2), np.int64)
    held = duplicates.held_out(digests, none, 5_000 / 200_000).sum()
    assert abs(held - 5_000) < 4 * np.sqrt(5_000)


def test_an_item_keeps_its_side_when_others_come_and_go(tmp_path: Path) -> None:
    items = RANDOM.integers(0, 256, (500, 6, 6, 1), dtype=np.uint8)
    whole = opened(items, tmp_path)
    order = RANDOM.permutation(500)[:300]
    part = opened(items[order], tmp_path)
    assert np.array_equal(part.held_out, whole.held_out[order])


def test_look_alikes_are_found_kept_together_and_others_are_not(tmp_path: Path) -> None:
    base = drawings(600)
    copies = np.stack([recompressed(picture, 90) for picture in base[:150]])
    got = opened(np.concatenate([base, copies]), tmp_path)
    true = {(k, 600 + k) for k in range(150)}
    found = set(got.audit.near_duplicates)
    assert len(found & true) > 0.95 * len(true)
    assert len(found - true) <= 2
    assert got.audit.leaks == 0
    assert all(got.held_out[i] == got.held_out[j] for i, j in found)


def test_leaks_through_an_official_split_are_counted(tmp_path: Path) -> None:
    base = drawings(100)
    items = np.concatenate([base, base[:3], recompressed(base[10], 95)[None], base[50:51]])
    split = np.array(["train"] * 100 + ["test"] * 4 + ["train"])
    got = opened(items, tmp_path, split=split)
    assert got.held_out.tolist() == (split == "test").tolist()
    assert got.audit.exact_duplicates == 4
    assert (10, 103) in got.audit.near_duplicates
    assert got.audit.leaks == 4
    assert "warning    4 pairs" in report(got)


def test_colour_tells_pictures_apart(tmp_path: Path) -> None:
    items = np.full((12, 16, 16, 3), 255, np.uint8)
    for k in range(12):
        items[k, 4:12, 4:12] = RANDOM.integers(0, 200, 3)
    assert opened(items, tmp_path).audit.near_duplicates == ()


def test_one_picture_that_is_most_of_the_set_is_trained_on(tmp_path: Path) -> None:
    for seed in range(20):
        r = np.random.default_rng(seed)
        items = r.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
        items[10:] = items[10]
        held = opened(items, tmp_path).held_out
        assert not held[10:].any()
        assert held.any()


def test_small_sets_hold_out_something_and_tiny_ones_nothing(tmp_path: Path) -> None:
    for count in (1, 2, 5, 10, 20):
        for seed in range(5):
            items = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
            held = opened(items, tmp_path).held_out
            assert held.sum() < count
            assert held.any() or count < 10


def test_the_work_grows_with_the_number_of_pictures() -> None:
    """Flat pictures all have one hash: the pairs compared stay 64 a picture."""
    codes = np.zeros(5000, np.uint64)
    compared = sum(len(a) for a, _ in duplicates._candidates(codes))
    assert compared <= 64 * 5000
    looks = np.zeros((3000, 12, 12, 1), np.float32)
    digests = np.arange(3000 * 32, dtype=np.uint32).reshape(3000, 32).astype(np.uint8)
    digests[:, :4] = np.arange(3000, dtype=">u4")[:, None].view(np.uint8)
    assert isinstance(duplicates.alike(digests, looks)["pairs"], list)


@pytest.mark.parametrize("shape", [(5, 7, 1), (12, 12, 3), (33, 50, 4), (1, 1, 2)])
def test_thumbnails_keep_the_mean(shape: tuple[int, ...]) -> None:
    items = RANDOM.integers(0, 256, (3, *shape), dtype=np.uint8)
    looks = duplicates.thumbnails(items, alpha=False)
    assert np.allclose(looks.mean((1, 2)), items.mean((1, 2)), rtol=1e-5)


def test_bits_are_counted() -> None:
    words = RANDOM.integers(0, 2**64, 100, dtype=np.uint64)
    assert duplicates._bits(words).tolist() == [int(word).bit_count() for word in words]

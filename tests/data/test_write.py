"""Out: grids, files and the recipes in them; and hostile files read back."""

import dataclasses
import io
import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langevin import data
from langevin.data import png
from langevin.data.audit import contact_sheet, report
from langevin.data.modality.image import Image as ImageModality
from langevin.data.png import read_metadata
from langevin.data.show import as_rgb, grid
from langevin.data.write import write
from langevin.errors import DiskError, RefusedError, UsageError

RANDOM = np.random.default_rng(0)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 5, 4, 1), (3, 5, 4, 3), (3, 5, 4, 4)])
def test_what_is_written_reads_back_level_for_level(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    items = noise(*shape, dtype=dtype)
    items[..., -1][items[..., -1] == 0] = 1
    recipes = [{"seed": k, "text": "caf\u00e9 \U0001f600 \ud800"} for k in range(3)]
    files = write(items, tmp_path / "out", metadata=recipes)
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    got = data.open(tmp_path / "out", cache=tmp_path / "cache").items
    assert np.array_equal(got, items if items.ndim == 4 else items[..., None])
    assert [read_metadata(file)["seed"] for file in files] == [0, 1, 2]
    (whole,) = write(items, tmp_path / "out.npz", metadata=[{"label": 3}] * 3)
    with np.load(whole) as stored:
        assert np.array_equal(stored["images"], items)
        assert stored["labels"].tolist() == [3, 3, 3]
        assert json.loads(str(stored["metadata"][1])) == {"label": 3}


def test_one_picture_is_written_as_it_is_and_many_as_a_grid(tmp_path: Path) -> None:
    items = noise(4, 6, 5, 3)
    (one,) = write(items[:1], tmp_path / "one.png", metadata=[{"a": 1}])
    with Image.open(one) as im:
        assert np.array_equal(np.asarray(im), items[0])
        assert json.loads(im.text["langevin"]) == {"a": 1}
    assert read_metadata(one) == {"a": 1}
    (many,) = write(items, tmp_path / "many.png", metadata=[{"k": k} for k in range(4)])
    with Image.open(many) as im:
        assert np.array_equal(np.asarray(im), np.asarray(grid(items)))
    assert read_metadata(many) == {"pictures": [{"k": k} for k in range(4)]}
    (bare,) = write(items[:1], tmp_path / "bare.png")
    assert read_metadata(bare) == {}


def test_nothing_is_overwritten_and_nothing_half_written_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = noise(2, 4, 4, 3)
    for name in ("a.png", "a.npz", "a"):
        write(items, tmp_path / name)
        with pytest.raises(UsageError, match="nothing is overwritten") as caught:
            write(1 - items, tmp_path / name)
        assert caught.value.exit_code == 2
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        write(items, tmp_path / "dangling.png")
    before = sorted(tmp_path.iterdir())

    def full(*args: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(png, "encoded", full)
    for name in ("b.png", "b"):
        with pytest.raises(DiskError, match="disk is full") as refused:
            write(items, tmp_path / name)
        assert refused.value.where == str(tmp_path / name)
        assert "LANGEVIN_CACHE" not in str(refused.value)  # moving the cache would be of no help
    assert sorted(tmp_path.iterdir()) == before


def test_what_cannot_be_written_says_what_can(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.jpg"):
        write(noise(1, 4, 4, 3), tmp_path / "a.jpg")
    for items in (noise(2, 4, 4, 2), RANDOM.standard_normal((2, 4, 4, 3)).astype(np.float32)):
        with pytest.raises(UsageError, match="npz"):
            write(items, tmp_path / "out")
        write(items, tmp_path / f"{items.shape[-1]}.png")
    with pytest.raises(UsageError, match="1 recipe for 2"):
        write(noise(2, 4, 4, 3), tmp_path / "b.png", metadata=[{}])
    assert not (tmp_path / "out").exists()


def test_grid_shows_each_picture_enlarged_without_smoothing() -> None:
    items = noise(5, 16, 16, 3)
    sheet = np.asarray(grid(items, columns=3, scale=4))
    assert sheet.shape == (2 + 2 * 66, 2 + 3 * 66, 3)
    for k in range(5):
        top, left = 2 + k // 3 * 66, 2 + k % 3 * 66
        assert np.array_equal(sheet[top : top + 64 : 4, left : left + 64 : 4], items[k])
        assert np.array_equal(sheet[top + 3 : top + 64 : 4, left + 3 : left + 64 : 4], items[k])
    assert (sheet[-1] == 255).all()
    assert grid(items).size[0] >= 3 * 64


def test_pictures_too_small_to_be_read_are_smoothed() -> None:
    edge = np.zeros((1, 8, 8, 1), np.uint8)
    edge[:, :, 4:] = 200
    tile = np.asarray(grid(edge, columns=1, scale=8))[2:66, 2:66, 0]
    assert (tile[:, :20] == 0).all()  # far from the edge nothing changes
    assert (tile[:, 44:] == 200).all()
    assert len(np.unique(tile[0])) > 4


def test_every_kind_can_be_looked_at() -> None:
    deep = noise(2, 4, 4, 1, dtype=np.uint16)
    assert np.array_equal(as_rgb(deep), np.repeat(deep >> 8, 3, -1))
    bands = noise(2, 4, 4, 7)
    assert np.array_equal(as_rgb(bands), bands[..., :3])
    assert np.array_equal(as_rgb(bands[..., :2]), np.repeat(bands[..., :1], 3, -1))
    clear = noise(1, 8, 8, 4)
    clear[..., 3] = 0
    assert len(np.unique(as_rgb(clear))) == 2  # the checkerboard alone
    clear[..., 3] = 255
    assert np.array_equal(as_rgb(clear), clear[..., :3])
    floats = np.array([-2.0, 0.0, 2.0, np.nan], np.float32).reshape(1, 2, 2, 1)
    assert as_rgb(floats)[0, ..., 0].ravel().tolist() == [0, 128, 255, 0]


def chunked(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(
    "body",
    [
        b"langevin\0\0\0\0\0not json",
        b"langevin\0\0\0\0\0[1, 2]",
        b"langevin\0\0\0\0\0\xff\xfe",
        b"langevin\0",
        b"langevin\0\1\0\0\0" + b"not deflated",
        b"langevin\0\1\0\0\0" + zlib.compress(bytes(1 << 26)),
        b"langevin\0\1\7\0\0{}",
        b"langevin\0\0\0\0\0" + b"[" * 500_000,
        b"langevin\0\0\0\0\0" + b'{"a":' * 200_000,
        b'langevin\0\0\0\0\0{"a": "' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_hostile_recipes_are_refused(body: bytes) -> None:
    with pytest.raises(RefusedError):
        read_metadata(b"\x89PNG\r\n\x1a\n" + chunked(b"iTXt", body))


def test_a_recipe_that_grows_costs_no_memory() -> None:
    bomb = b"\x89PNG\r\n\x1a\n" + chunked(b"iTXt", b"langevin\0\1\0\0\0" + zlib.compress(bytes(1 << 26)))
    tracemalloc.start()
    with pytest.raises(RefusedError, match="more than"):
        read_metadata(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_files_without_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        read_metadata(b"GIF89a")
    signature = b"\x89PNG\r\n\x1a\n"
    assert read_metadata(signature) == {}
    assert read_metadata(signature + struct.pack(">I", 2**32 - 1) + b"IDATxxxx") == {}
    assert read_metadata(signature + chunked(b"IEND", b"") + chunked(b"iTXt", b"langevin\0\0\0\0\0{}")) == {}
    with pytest.raises(RefusedError, match="too many"):
        read_metadata(signature + chunked(b"aaaa", b"") * 100_001)
    compressed = chunked(b"iTXt", b"langevin\0\1\0\0\0" + zlib.compress(b'{"a": 1}'))
    assert read_metadata(signature + chunked(b"IDAT", b"") + compressed) == {"a": 1}
    out = io.BytesIO()
    Image.new("L", (2, 2)).save(out, "PNG")
    assert read_metadata(out.getvalue()) == {}


def test_contact_sheet_and_report(tmp_path: Path) -> None:
    digits = data.open("digits")
    sheet = contact_sheet(digits, 20)
    assert sheet.width > 5 * 64
    text = report(digits)
    assert "1,797 of 8x8, grey, 8 bits" in text
    assert "10: 0 (178), 1 (182)" in text
    assert digits.fingerprint in text
    assert contact_sheet(digits, 10**6).height > 0


def test_the_modality_makes_the_codec_that_fits(tmp_path: Path) -> None:
    modality = ImageModality()
    codec = modality.codec(data.open("digits"))
    assert codec.config == {"dtype": "uint8", "channels": 1, "low": None, "high": None, "squeeze": True}
    found = data.open("digits").audit
    assert found.model_range == (0, 255)
    for low, high, expected in ((0.0, 0.99, (0, 1)), (-0.98, 0.97, (-1, 1)), (-3, 7.5, (-3, 7.5)), (2, 2, (1, 3))):
        floats = dataclasses.replace(found, dtype="float32", low=(low,), high=(high,))
        assert floats.model_range == expected
    values = RANDOM.uniform(-30, 50, (10, 4, 4)).astype(np.float32)
    np.save(tmp_path / "f.npy", values)
    got = data.open(tmp_path / "f.npy", cache=tmp_path / "cache")
    codec = modality.codec(got)
    assert codec.config["low"] == values.min()
    assert codec.config["high"] == values.max()
    assert modality.recognises("digits")
    assert not modality.recognises(tmp_path / "none.npz")

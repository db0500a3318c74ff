"""One picture: every level, upright, in true colours; and the ones that cannot be used, each with its reason."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from langevin.data import png
from langevin.data.pictures import MAX_PIXELS, decode, header
from langevin.data.sources.base import Unusable

RANDOM = np.random.default_rng(0)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def only(data: bytes) -> np.ndarray:
    (pixels,) = decode(data)
    return pixels


def reason(data: bytes) -> str:
    try:
        header(data)
        list(decode(data))
    except Unusable as unusable:
        return unusable.code
    return "usable"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(rows: np.ndarray, step: int) -> bytes:
    """The PNG filters by their definition, another one on each row."""
    out = b""
    above = np.zeros(rows.shape[1], int)
    for y, row in enumerate(rows.astype(int)):
        left, corner = (np.concatenate([np.zeros(step, int), line[:-step]]) for line in (row, above))
        p = left + above - corner
        near = np.stack([abs(p - left), abs(p - above), abs(p - corner)]).argmin(0)
        paeth = np.choose(near, [left, above, corner])
        guess = [0 * row, left, above, (left + above) // 2, paeth][y % 5]
        out += bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def png_16(levels: np.ndarray, colour_type: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    height, width, channels = levels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlaced)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    body = b""
    for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
        part = levels[top::down, left::right]
        if part.size:
            body += filtered(part.astype(">u2").view(np.uint8).reshape(len(part), -1), 2 * channels)
    return png._SIGNATURE + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_every_level(colour_type: int, channels: int, interlaced: bool) -> None:
    levels = RANDOM.permutation(65536)[: 4096 * channels].reshape(64, 64, channels).astype(np.uint16)
    data = png_16(levels, colour_type, interlaced=interlaced)
    expected = levels if channels != 2 else levels[..., [0, 0, 0, 1]]
    got = only(data)
    assert got.dtype == np.uint16
    assert np.array_equal(got, expected)
    head = header(data)
    assert (head.dtype, head.colour, head.alpha) == ("uint16", channels > 2, channels in (2, 4))


def test_a_16_bit_grey_ramp_keeps_all_65536_levels() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(only(saved(Image.fromarray(ramp), kind))[..., 0], ramp)
    pgm = b"P5 256 256 65535 " + ramp.astype(">u2").tobytes()
    assert np.array_equal(only(pgm)[..., 0], ramp)


def test_16_bit_transparency_by_colour() -> None:
    levels = RANDOM.integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    levels[2, 3] = levels[5, 5] = (0x1234, 0x12FF, 0x8000)
    levels[6, 6] = (0x1234, 0x12FE, 0x8000)  # differs in a low byte alone
    got = only(png_16(levels, 2, extra=chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x12FF, 0x8000))))
    assert np.array_equal(got[..., :3], levels)
    clear = np.argwhere(got[..., 3] == 0)
    assert clear.tolist() == [[2, 3], [5, 5]]
    grey = levels[..., :1].copy()
    grey[1, 1] = 7
    got = only(png_16(grey, 0, extra=chunk(b"tRNS", struct.pack(">H", 7))))
    assert np.argwhere(got[..., 3] == 0).tolist() == [[1, 1]]
    assert np.array_equal(got[..., 0], grey[..., 0])


def tiff_16(levels: np.ndarray, order: str, *, deflated: bool) -> bytes:
    """A one-strip TIFF by the book."""
    height, width, channels = levels.shape
    strip = levels.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if deflated else strip
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8), (259, 3, 1, 8 if deflated else 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 14), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(strip)), (284, 3, 1, 1)]
    directory = struct.pack(order + "H", len(tags))
    for tag, kind, count, value in tags:
        packed = struct.pack(order + "HH", value, 0) if (kind, count) == (3, 1) else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, count) + packed
    place = 14 + len(strip) + len(strip) % 2
    head = (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(order + "I", place)
        + struct.pack(order + "3H", 16, 16, 16)
    )
    return head + strip + bytes(len(strip) % 2) + directory + bytes(4)


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_tiff_keeps_every_level(order: str, deflated: bool) -> None:
    levels = RANDOM.permutation(65536)[: 3 * 1024].reshape(32, 32, 3).astype(np.uint16)
    assert np.array_equal(only(tiff_16(levels, order, deflated=deflated)), levels)


def test_our_png_writer_is_read_by_pillow_and_by_us() -> None:
    for channels in (1, 3, 4):
        for dtype in (np.uint8, np.uint16):
            levels = RANDOM.integers(0, np.iinfo(dtype).max, (9, 7, channels), dtype, endpoint=True)
            data = png.encoded(levels)
            assert np.array_equal(only(data), levels)
            with Image.open(io.BytesIO(data)) as im:
                theirs = np.asarray(im).reshape(9, 7, channels)
            assert np.array_equal(theirs, levels if theirs.dtype == dtype else levels >> 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = RANDOM.integers(0, 256, (5, 8, 3), dtype=np.uint8)
    # how a camera stores it, by the EXIF standard's table of where row 0 and column 0 lie
    stored = {
        1: upright,
        2: upright[:, ::-1],  # row 0 top, column 0 right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.transpose(1, 0, 2),  # left, top
        6: np.rot90(upright, 1),  # right, top
        7: np.rot90(upright, 2).transpose(1, 0, 2),  # right, bottom
        8: np.rot90(upright, -1),  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
        assert np.array_equal(only(data), upright), kind
        head = header(data)
        assert (head.height, head.width, head.turned) == (5, 8, orientation > 1)


def test_exif_orientation_of_a_jpeg() -> None:
    upright = Image.new("RGB", (48, 32), "red")
    ImageDraw.Draw(upright).rectangle((0, 0, 23, 15), fill="blue")  # top left
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that undo ours
        stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
        got = only(saved(stored, "JPEG", quality=95, subsampling=0, exif=exif))
        assert got.shape == (32, 48, 3)
        assert np.abs(got.astype(int) - np.asarray(upright)).max() < 40
        assert np.abs(got[:12, :20].astype(int) - (0, 0, 255)).mean() < 4


def test_cmyk_by_its_marker() -> None:
    """Adobe stores ink inverted, others do not; both must show the same colours."""
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 0], inks[8:, :, 1] = 255, 200
    data = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data
    expected = 255 - inks[..., :3].astype(int)  # no black ink: cyan 255 leaves no red
    assert np.abs(only(data).astype(int) - expected).max() <= 4
    marked = saved(Image.fromarray(255 - inks, "CMYK"), "JPEG", quality=100, subsampling=0)  # so stored as the inks are
    place = marked.index(b"\xff\xee")
    unmarked = marked[:place] + marked[place + 2 + int.from_bytes(marked[place + 2 : place + 4], "big") :]
    with Image.open(io.BytesIO(unmarked)) as im:
        assert im.mode == "CMYK"
    assert np.abs(only(unmarked).astype(int) - expected).max() <= 4
    assert np.abs(only(saved(Image.fromarray(inks, "CMYK"), "TIFF")).astype(int) - expected).max() <= 1
    assert header(data).mode == "CMYK"


def test_palettes_and_grey_with_alpha() -> None:
    index = RANDOM.integers(0, 4, (6, 6), dtype=np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
    im = Image.fromarray(index, "P")
    im.putpalette(colours.ravel().tolist())
    assert np.array_equal(only(saved(im, "PNG")), colours[index])
    got = only(saved(im, "PNG", transparency=bytes([255, 0, 128, 255])))
    assert np.array_equal(got[..., :3], colours[index])
    assert np.array_equal(got[..., 3], np.array([255, 0, 128, 255])[index])
    got = only(saved(im, "PNG", transparency=1))
    assert np.array_equal(got[..., 3], np.where(index == 1, 0, 255))
    im.putpalette(np.repeat([[0], [50], [100], [200]], 3, 1).ravel().tolist())
    data = saved(im, "PNG")
    assert not header(data).colour
    assert np.array_equal(only(data)[..., 0], np.array([0, 50, 100, 200])[index])
    pair = RANDOM.integers(0, 256, (6, 6, 2), dtype=np.uint8)
    data = saved(Image.fromarray(pair, "LA"), "PNG")
    assert header(data).alpha
    assert np.array_equal(only(data), pair[..., [0, 0, 0, 1]])
    assert np.array_equal(only(saved(Image.fromarray(index > 1), "PNG"))[..., 0], (index > 1) * 255)
    grey = Image.fromarray(index * 60)
    got = only(saved(grey, "PNG", transparency=60))
    assert np.array_equal(got[..., 3], np.where(index == 1, 0, 255))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations(kind: str) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [Image.new("RGB", (8, 8), colour) for colour in colours]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert header(data).frames == 3
    first = list(decode(data))
    assert len(first) == 1
    assert (first[0][..., :3] == colours[0]).all()
    every = list(decode(data, every_frame=True))
    assert [tuple(frame[0, 0, :3]) for frame in every] == colours


def test_what_cannot_be_used_says_why() -> None:
    noise = Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        data = saved(noise, kind)
        assert reason(data) == "usable"
        assert reason(data[: len(data) // 2]) in ("TRUNCATED", "BROKEN"), kind
    half = saved(noise, "JPEG", quality=90)
    assert reason(half[: len(half) // 2]) == "TRUNCATED"
    Image.open(io.BytesIO(half[: len(half) // 2])).verify()  # which sees nothing wrong
    assert reason(b"") == "NOT_AN_IMAGE"
    assert reason(b"<!DOCTYPE html><html><body>404</body></html>") == "NOT_AN_IMAGE"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "NOT_AN_IMAGE"
    assert reason(b"\x89PNG\r\n\x1a\n" + bytes(40)) == "BROKEN"
    damaged = bytearray(saved(noise, "PNG"))
    damaged[len(damaged) // 2] ^= 0xFF
    assert reason(bytes(damaged)) in ("BROKEN", "TRUNCATED")


def test_bombs_are_refused_from_the_header() -> None:
    for side in (8_001, 12_000, 40_000):
        head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = (
            png._SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
        )
        assert side * side > MAX_PIXELS
        with pytest.raises(Unusable) as caught:
            header(bomb)
        assert caught.value.code == "TOO_MANY_PIXELS"


def test_damaged_exif_does_not_cost_the_picture() -> None:
    picture = Image.new("RGB", (8, 8), "teal")
    data = saved(picture, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings(action="ignore"):  # as it is when a set is read
        assert (only(data) == (0, 128, 128)).all()
        assert header(data).turned is False


def test_profiles_and_odd_modes_do_not_stop_it() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (only(saved(Image.new("RGB", (4, 4), "teal"), "PNG", icc_profile=profile)) == (0, 128, 128)).all()
    levels = RANDOM.standard_normal((4, 5)).astype(np.float32)
    got = only(saved(Image.fromarray(levels), "TIFF"))
    assert got.dtype == np.float32
    assert np.array_equal(got[..., 0], levels)
    whole = np.full((2, 2), 70_000, np.int32)
    assert reason(saved(Image.fromarray(whole), "TIFF")) == "UNSUPPORTED"
    whole[:] = 65_535
    assert np.array_equal(only(saved(Image.fromarray(whole), "TIFF"))[..., 0], whole)


def test_whatever_is_damaged_is_unusable_and_nothing_worse() -> None:
    """Flipped, cut and inserted bytes in every format: pixels or a reason, never another exception."""
    picture = Image.fromarray(RANDOM.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    moving = {"save_all": True, "append_images": [picture.rotate(9)]}
    kinds = [("PNG", {}), ("PNG", moving), ("JPEG", {}), ("GIF", moving), ("WEBP", moving), ("BMP", {}), ("PPM", {})]
    seeds = [saved(picture.convert(mode), kind, **options) for kind, options in kinds for mode in ("RGB", "L")]
    seeds += [saved(picture, "TIFF"), png.encoded(RANDOM.integers(0, 65536, (20, 20, 3)).astype(np.uint16))]
    with warnings.catch_warnings(action="ignore"):
        for k in range(3000):
            data = bytearray(seeds[k % len(seeds)])
            for _ in range(RANDOM.integers(1, 5)):
                place = int(RANDOM.integers(min(len(data), 90) if RANDOM.random() < 0.5 else len(data)))
                what = RANDOM.integers(3)
                if what == 0:
                    data[place] ^= 1 << int(RANDOM.integers(8))
                elif what == 1:
                    data[place:place] = RANDOM.bytes(3)
                else:
                    del data[place + 1 :]
            reason(bytes(data))

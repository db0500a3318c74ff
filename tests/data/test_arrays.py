"""Arrays in: .npy, .npz, idx, the built-in digits. What goes in comes out, level for level."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from langevin import data
from langevin.data.dataset import Dataset
from langevin.errors import DataError, RefusedError

RANDOM = np.random.default_rng(0)


def opened(path: Path | str, tmp_path: Path, **options: object) -> Dataset:
    return data.open(path, cache=tmp_path / "cache", **options)


def write_idx(path: Path, values: np.ndarray) -> None:
    code = {"uint8": 8, "int16": 0x0B, "float32": 0x0D}[values.dtype.name]
    head = bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    body = head + values.astype(values.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)


def test_digits_are_scikit_learns_to_the_level() -> None:
    digits, bunch = data.open("digits"), load_digits()
    assert digits.shape == (8, 8, 1)
    assert digits.squeeze
    assert np.array_equal(np.rint(digits.items[..., 0] / (255 / 16)), bunch.images)
    assert np.array_equal(digits.columns["label"], bunch.target)
    assert digits.classes == tuple("0123456789")
    assert 0.07 < digits.held_out.mean() < 0.13


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(12, 5, 7), (12, 5, 7, 1), (12, 5, 7, 2), (12, 5, 7, 4), (12, 5, 7, 9)])
def test_npy_comes_out_as_it_went_in(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    values = RANDOM.integers(1, 250, shape).astype(dtype)
    np.save(tmp_path / "set.npy", values)
    got = opened(tmp_path / "set.npy", tmp_path)
    assert got.items.dtype == dtype
    assert got.squeeze == (len(shape) == 3)
    assert np.array_equal(got.items, values if len(shape) == 4 else values[..., None])
    assert got.audit.low == tuple(values.reshape(-1, got.shape[-1]).min(0).tolist())
    flat = got.items.reshape(-1, got.shape[-1]).astype(np.float64)
    assert np.allclose(got.audit.mean, flat.mean(0), rtol=1e-9)
    assert np.allclose(got.audit.std, flat.std(0), rtol=1e-7)


def test_other_dtypes_are_kept_where_they_fit(tmp_path: Path) -> None:
    ramp = np.arange(-400, 400).reshape(8, 10, 10)
    for values, dtype in (
        (ramp.astype(np.int64), "float32"),
        (ramp.astype(np.int16) + 400, "uint16"),
        (np.abs(ramp).clip(0, 255).astype(np.int32), "uint8"),
        (ramp.astype(">f8"), "float32"),
        (ramp.astype(np.float64)[:, ::-1].copy("F"), "float32"),
        ((ramp + 400).astype(">u2"), "uint16"),
    ):
        path = tmp_path / f"{dtype}-{values.dtype.str[1:]}-{values.flags.c_contiguous}.npy"
        np.save(path, values)
        got = opened(path, tmp_path)
        assert got.items.dtype == dtype
        assert np.array_equal(got.items[..., 0], values)
    np.save(tmp_path / "bool.npy", ramp > 0)
    assert np.array_equal(opened(tmp_path / "bool.npy", tmp_path).items[..., 0], (ramp > 0) * np.uint8(255))
    np.save(tmp_path / "large.npy", ramp + 2**30)
    with pytest.raises(DataError, match="exactly"):
        opened(tmp_path / "large.npy", tmp_path)


def test_channels_first_is_moved_and_said(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (9, 3, 16, 20), dtype=np.uint8)
    np.save(tmp_path / "set.npy", values)
    got = opened(tmp_path / "set.npy", tmp_path)
    assert np.array_equal(got.items, values.transpose(0, 2, 3, 1))
    assert any("channels come first" in note for note in got.audit.notes)


def test_values_that_are_not_finite_are_rejected_by_name(tmp_path: Path) -> None:
    values = RANDOM.standard_normal((50, 4, 4)).astype(np.float32)
    values[7, 1, 1], values[31, 0, 0] = np.nan, np.inf
    np.save(tmp_path / "set.npy", values)
    with pytest.raises(DataError, match="2 of 50"):
        opened(tmp_path / "set.npy", tmp_path)
    got = opened(tmp_path / "set.npy", tmp_path, allow_rejects=0.1)
    assert [reject[:2] for reject in got.audit.rejects] == [
        ("set.npy[7]", "NOT_FINITE"),
        ("set.npy[31]", "NOT_FINITE"),
    ]
    assert np.array_equal(got.items[..., 0], np.delete(values, [7, 31], 0))


def test_npz_columns(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "set.npz",
        image=values,
        category=np.array(["cat", "dog", "", "dog", "ant", "cat"]),
        text=np.array(["a", "b", "c", "d", "e", ""]),
        weight=np.arange(6.0),
        palette=np.arange(4),
    )
    got = opened(tmp_path / "set.npz", tmp_path)
    assert np.array_equal(got.items, values)
    assert got.classes == ("ant", "cat", "dog")
    assert got.columns["label"].tolist() == [1, 2, -1, 2, 0, 1]
    assert got.columns["text"].tolist() == ["a", "b", "c", "d", "e", ""]
    assert got.columns["weight"].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(got.columns) == {"label", "text", "weight"}
    assert got.audit.class_counts == {"ant": 1, "cat": 2, "dog": 2, "(no label)": 1}


def test_npz_numbered_labels(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (5, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "gaps.npz", values, y=np.array([[7], [3], [-1], [3], [9]]))
    got = opened(tmp_path / "gaps.npz", tmp_path)
    assert got.classes == ("3", "7", "9")
    assert got.columns["label"].tolist() == [1, 0, -1, 0, 2]
    np.savez(tmp_path / "names.npz", x=values, y=np.array([2, 0, -1, 2, 0]), label_names=np.array(["a", "b", "c"]))
    got = opened(tmp_path / "names.npz", tmp_path)
    assert got.classes == ("a", "b", "c")
    assert got.columns["label"].tolist() == [2, 0, -1, 2, 0]
    np.savez(tmp_path / "few.npz", x=values, y=np.array([2, 0, 3, 2, 0]), label_names=np.array(["a", "b", "c"]))
    with pytest.raises(DataError, match="3 classes"):
        opened(tmp_path / "few.npz", tmp_path)
    np.savez(tmp_path / "fractions.npz", x=values, y=np.arange(5) / 2)
    got = opened(tmp_path / "fractions.npz", tmp_path)
    assert got.classes == ()
    assert got.columns["y"].tolist() == [0, 0.5, 1, 1.5, 2]


def test_npz_in_parts_holds_out_its_test_part(tmp_path: Path) -> None:
    parts = {name: RANDOM.integers(0, 256, (n, 4, 4), dtype=np.uint8) for name, n in (("train", 7), ("test", 3))}
    np.savez(
        tmp_path / "set.npz",
        test_images=parts["test"],
        train_images=parts["train"],
        test_labels=np.array([[0], [1], [0]]),
        train_labels=np.arange(7)[:, None] % 2,
    )
    got = opened(tmp_path / "set.npz", tmp_path)
    assert np.array_equal(got.items[~got.held_out][..., 0], parts["train"])
    assert np.array_equal(got.items[got.held_out][..., 0], parts["test"])
    assert got.columns["label"][got.held_out].tolist() == [0, 1, 0]
    assert got.audit.official_split


def test_idx_folder_with_an_official_split(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    train, test = (RANDOM.integers(0, 256, (n, 6, 5), dtype=np.uint8) for n in (40, 10))
    write_idx(folder / "train-images-idx3-ubyte.gz", train)
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.arange(40, dtype=np.uint8) % 4)
    write_idx(folder / "t10k-images-idx3-ubyte", test)
    write_idx(folder / "t10k-labels-idx1-ubyte", np.arange(10, dtype=np.uint8) % 4)
    got = opened(folder, tmp_path)
    assert np.array_equal(got.items[got.train_indices][..., 0], train)
    assert np.array_equal(got.items[got.held_out_indices][..., 0], test)
    assert got.columns["label"].tolist() == [*(np.arange(40) % 4), *(np.arange(10) % 4)]
    assert got.squeeze
    assert got.names[41] == "t10k-images-idx3-ubyte[1]"
    one = opened(folder / "train-images-idx3-ubyte.gz", tmp_path)
    assert np.array_equal(one.items[..., 0], train)
    assert one.classes == ("0", "1", "2", "3")


def test_the_fingerprint_knows_the_official_split(tmp_path: Path) -> None:
    values, seen = RANDOM.integers(0, 256, (50, 6, 5), dtype=np.uint8), set()
    for held in (10, 11):
        folder = tmp_path / f"hold-{held}"
        folder.mkdir()
        write_idx(folder / "train-images-idx3-ubyte", values[:-held])
        write_idx(folder / "t10k-images-idx3-ubyte", values[-held:])
        got = opened(folder, tmp_path)
        assert np.array_equal(got.items[..., 0], values)
        seen.add(got.fingerprint)
    assert len(seen) == 2


@pytest.mark.parametrize(("dtype", "kept"), [("int16", "uint16"), ("float32", "float32")])
def test_idx_of_other_types(tmp_path: Path, dtype: str, kept: str) -> None:
    values = RANDOM.integers(0, 3000, (8, 4, 4)).astype(dtype)
    write_idx(tmp_path / "x-images-idx3-any", values)
    got = opened(tmp_path / "x-images-idx3-any", tmp_path)
    assert got.items.dtype == kept
    assert np.array_equal(got.items[..., 0], values)


def test_damaged_and_lying_idx_files_are_refused(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (40, 6, 5), dtype=np.uint8)
    path = tmp_path / "a-images-idx3-ubyte.gz"
    write_idx(path, values)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RefusedError, match="damaged"):
        opened(path, tmp_path)
    for axes in ((41, 6, 5), (2**31, 2**16, 2**16)):
        plain = tmp_path / f"b{axes[0]}-images-idx3-ubyte"
        plain.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", *axes) + values.tobytes())
        with pytest.raises(RefusedError):
            opened(plain, tmp_path)
    flat = tmp_path / "d-images-idx3-ubyte"
    flat.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 40, 6, 0))
    with pytest.raises(DataError, match="no array of pictures"):
        opened(flat, tmp_path)
    other = tmp_path / "c-images-idx3-ubyte"
    other.write_bytes(b"\x80\x04K\x01." + bytes(100))
    with pytest.raises(RefusedError, match="not an idx"):
        opened(other, tmp_path)


def test_npz_of_encoded_pictures(tmp_path: Path) -> None:
    from langevin.data.png import encoded

    values = RANDOM.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    files = [encoded(v) for v in values]
    np.savez(
        tmp_path / "set.npz",
        image_png=np.frombuffer(b"".join(files), np.uint8),
        offset=np.cumsum([0, *map(len, files)]),
        label=np.arange(12) % 3,
        label_names=np.array(["a", "b", "c"]),
        split=np.array(["train"] * 10 + ["test"] * 2),
    )
    got = opened(tmp_path / "set.npz", tmp_path)
    assert np.array_equal(got.items, values)
    assert got.classes == ("a", "b", "c")
    assert got.held_out.tolist() == [False] * 10 + [True] * 2


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    objects = np.empty(4, object)
    objects[:] = [_Payload(trap)] * 4
    np.save(tmp_path / "a.npy", objects)
    np.savez(tmp_path / "b.npz", images=np.zeros((4, 3, 3), np.uint8), label=objects)
    (tmp_path / "c.npy").write_bytes(b"\x80\x04" + (tmp_path / "a.npy").read_bytes()[128:])
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npy").read_bytes())
    for name in ("a.npy", "b.npz", "c.npy", "d.npz"):
        with pytest.raises(RefusedError) as caught:
            opened(tmp_path / name, tmp_path)
        assert caught.value.exit_code == 7
    assert not trap.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert trap.exists()  # the payload works where it is let to


def test_arrays_cut_short_or_lying_about_their_shape_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((10, 4, 4), np.uint8))
    whole = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-1])
    for name, shape in (("lying.npy", (11, 4, 4)), ("huge.npy", (10**9, 10**6, 4)), ("negative.npy", (-10, -4, 4))):
        with (tmp_path / name).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "|u1"})
            file.write(bytes(160))
    for name in ("cut.npy", "lying.npy", "huge.npy", "negative.npy"):
        with pytest.raises(RefusedError):
            opened(tmp_path / name, tmp_path)
    np.save(tmp_path / "flat.npy", np.zeros((10, 784), np.uint8))
    with pytest.raises(DataError, match=r"\(10, 784\)"):
        opened(tmp_path / "flat.npy", tmp_path)
    np.savez(tmp_path / "none.npz", a=np.zeros(3), b=np.zeros((3, 4, 4)), c=np.zeros((3, 4, 4)))
    with pytest.raises(DataError, match="no picture array"):
        opened(tmp_path / "none.npz", tmp_path)


def test_rgba_arrays(tmp_path: Path) -> None:
    """Colour under transparent pixels is nothing; on a matte it is alpha compositing in exact arithmetic."""
    values = RANDOM.integers(0, 256, (20, 5, 5, 4), dtype=np.uint8)
    values[..., 3] = RANDOM.choice([0, 255, 255, 100], (20, 5, 5))
    np.save(tmp_path / "set.npy", values)
    got = opened(tmp_path / "set.npy", tmp_path)
    clear = values[..., 3] == 0
    assert got.audit.transparency
    assert (got.items[clear] == 0).all()
    assert np.array_equal(got.items[~clear], values[~clear])
    got = opened(tmp_path / "set.npy", tmp_path, matte="#10c8ff")
    alpha = values[..., 3:] / 255
    assert got.shape == (5, 5, 3)
    expected = np.floor(values[..., :3] * alpha + np.array([0x10, 0xC8, 0xFF]) * (1 - alpha) + 0.5 + 1e-9)
    assert np.array_equal(got.items, expected)


def test_a_fourth_band_is_not_taken_for_transparency(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (20, 5, 5, 4), dtype=np.uint8)
    np.save(tmp_path / "set.npy", values)
    got = opened(tmp_path / "set.npy", tmp_path)
    assert np.array_equal(got.items, values)
    assert not got.audit.transparency


def test_constant_channels_are_found(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (20, 5, 5, 3), dtype=np.uint8)
    values[..., 1] = 9
    np.save(tmp_path / "set.npy", values)
    assert opened(tmp_path / "set.npy", tmp_path).audit.constant_channels == (1,)


def test_whatever_is_damaged_is_refused_and_nothing_worse(tmp_path: Path) -> None:
    """Flipped, cut and inserted bytes in arrays: a dataset or an error that a user can read."""
    values = RANDOM.integers(0, 256, (8, 6, 5), dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", images=values, label=np.arange(8) % 3, text=np.array(list("abcdefgh")))
    np.savez_compressed(tmp_path / "b.npz", images=values, label=np.arange(8) % 3)
    write_idx(tmp_path / "a-images-idx3-ubyte", values)
    write_idx(tmp_path / "b-images-idx3-ubyte.gz", values)
    whole = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    ended = {"read": 0, "refused": 0}
    for k in range(500):
        path = list(whole)[k % len(whole)]
        content = bytearray(whole[path])
        for _ in range(RANDOM.integers(1, 4)):
            place = int(RANDOM.integers(min(len(content), 140) if RANDOM.random() < 0.5 else len(content)))
            what = RANDOM.integers(3)
            if what == 0:
                content[place] ^= 1 << int(RANDOM.integers(8))
            elif what == 1:
                content[place:place] = RANDOM.bytes(3)
            else:
                del content[place + 1 :]
        path.write_bytes(content)
        try:
            opened(path, tmp_path, allow_rejects=1.0)
            ended["read"] += 1
        except (RefusedError, DataError):
            ended["refused"] += 1
    assert min(ended.values()) > 20

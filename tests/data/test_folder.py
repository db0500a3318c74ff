"""Folders and zips of pictures, and everything that can be wrong with them."""

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langevin import data
from langevin.data import gather, png
from langevin.data.audit import report, write_rejects
from langevin.data.dataset import Dataset
from langevin.data.sources import tree
from langevin.errors import DataError, RefusedError, UsageError

RANDOM = np.random.default_rng(0)


def opened(path: Path, tmp_path: Path, **options: object) -> Dataset:
    return data.open(path, cache=tmp_path / "cache", **options)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def put(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png.encoded(pixels))
    return path


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(out, "JPEG", **options)
    return out.getvalue()


def codes(dataset: Dataset) -> dict[str, str]:
    return {reject.name: reject.code for reject in dataset.audit.rejects}


def test_a_flat_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    pixels = {f"{k}.png": noise(6, 5, 3) for k in (10, 2, 33, 1)}
    for name, values in pixels.items():
        put(tmp_path / "set" / name, values)
    got = opened(tmp_path / "set", tmp_path)
    assert list(got.names) == ["1.png", "10.png", "2.png", "33.png"]
    assert all(np.array_equal(item, pixels[name]) for name, item in zip(got.names, got.items, strict=True))
    assert got.classes == ()
    assert "label" not in got.columns
    assert not got.squeeze


def test_folders_are_classes(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/2.png", "cat/deep/er/3.png", "ant/4.png", "5.png"):
        put(tmp_path / "set" / name, noise(4, 4, 1))
    got = opened(tmp_path / "set", tmp_path)
    assert got.classes == ("ant", "cat", "dog")
    assert dict(zip(got.names, got.columns["label"].tolist(), strict=True)) == {
        "5.png": -1,
        "ant/4.png": 0,
        "cat/2.png": 1,
        "cat/deep/er/3.png": 1,
        "dog/1.png": 2,
    }


def test_train_and_test_folders_are_the_split(tmp_path: Path) -> None:
    for k, name in enumerate(("train/a/1.png", "train/b/2.png", "test/a/3.png", "train/b/4.png")):
        put(tmp_path / "set" / name, np.full((4, 4, 1), k, np.uint8))
    got = opened(tmp_path / "set", tmp_path)
    assert got.classes == ("a", "b")
    assert [name for name, held in zip(got.names, got.held_out, strict=True) if held] == ["test/a/3.png"]
    assert got.audit.official_split


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_tables(tmp_path: Path, kind: str) -> None:
    for k in range(5):
        put(tmp_path / "set" / "pictures" / f"{k}.png", noise(4, 4, 3))
    rows = [
        {"file_name": "pictures/3.png", "text": "a \u201cquoted\u201d, caption", "label": "b", "weight": 3},
        {"file_name": "pictures/0.png", "text": "zero", "label": "a", "weight": 0},
        {"file_name": "pictures/1.png", "text": "", "label": "", "weight": 1},
        {"file_name": "pictures/2.png", "text": "two", "label": "b", "weight": 2},
    ]
    table = tmp_path / "set" / f"metadata.{kind}"
    if kind == "csv":
        with table.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        table.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    got = opened(tmp_path / "set", tmp_path)
    assert got.columns["text"].tolist() == ["zero", "", "two", "a \u201cquoted\u201d, caption", ""]
    assert got.classes == ("a", "b")
    assert got.columns["label"].tolist() == [0, -1, 1, 1, -1]
    assert [str(value) for value in got.columns["weight"]] == ["0", "1", "2", "3", ""]
    assert any("1 picture has no row" in note for note in got.audit.notes)


def test_metadata_that_cannot_be_used_says_where(tmp_path: Path) -> None:
    put(tmp_path / "set" / "1.png", noise(4, 4, 1))
    table = tmp_path / "set" / "metadata.csv"
    table.write_text("filename,text\n1.png,hello\n")
    with pytest.raises(DataError, match=r"did you mean `filename`"):
        opened(tmp_path / "set", tmp_path)
    table.write_text("file_name,text\n1.png,hello\n../../secret.png,out\ngone.png,missing\n")
    with pytest.raises(DataError, match="2 of 3"):
        opened(tmp_path / "set", tmp_path)
    got = opened(tmp_path / "set", tmp_path, allow_rejects=0.7)
    assert codes(got) == {"../../secret.png": "UNSAFE_NAME", "gone.png": "MISSING"}
    table.unlink()
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "1.png"}\n[1, 2\n')
    with pytest.raises(DataError, match=r"metadata.jsonl:2"):
        opened(tmp_path / "set", tmp_path)


def test_captions_missing_huge_and_with_nul(tmp_path: Path) -> None:
    """FAULT 11."""
    for k in range(4):
        put(tmp_path / "set" / f"{k}.png", noise(4, 4, 1))
    huge = "word " * 400_000
    (tmp_path / "set" / "metadata.csv").write_text(f'file_name,text\n0.png,{huge}\n1.png,"a\0b"\n2.png,\n3.png,plain\n')
    got = opened(tmp_path / "set", tmp_path)
    assert got.columns["text"].tolist() == [huge[:1000], "ab", "", "plain"]
    notes = " ".join(got.audit.notes)
    assert "1 caption is missing" in notes
    assert "1 caption is longer than 1,000 characters" in notes
    assert "1 caption holds NUL" in notes
    (tmp_path / "set" / "metadata.csv").unlink()
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "\\ud800x"}\n')
    opened(tmp_path / "set", tmp_path).columns["text"][0].encode()


def twenty_bad(folder: Path) -> dict[str, str]:
    """Twenty unusable files, name -> the reason that must be given."""
    cut = jpeg(noise(32, 32, 3), quality=90)
    out = {}

    def bad(name: str, content: bytes, code: str) -> None:
        (folder / name).write_bytes(content)
        out[name] = code

    for k in range(5):
        bad(f"cut-{k}.jpg", cut[: len(cut) * (k + 3) // 9], "TRUNCATED")
    bad("page.jpg", b"<!DOCTYPE html><html>404 Not Found</html>", "NOT_AN_IMAGE")
    bad("page.png", b"<html>", "NOT_AN_IMAGE")
    bad("empty.jpg", b"", "NOT_AN_IMAGE")
    bad("empty.webp", b"", "NOT_AN_IMAGE")
    bad("text.gif", b"just text", "NOT_AN_IMAGE")
    bad("pickle.png", b"\x80\x04\x95" + bytes(60), "NOT_AN_IMAGE")
    whole = png.encoded(noise(32, 32, 3))
    bad("cut.png", whole[: len(whole) // 2], "TRUNCATED")
    bad("head.png", whole[:20], "TRUNCATED")
    bad("bomb.png", bomb(40_000), "TOO_MANY_PIXELS")
    bad("bomb-2.png", bomb(9_000), "TOO_MANY_PIXELS")
    bad("phone.heic", b"\0\0\0\x18ftypheic", "UNSUPPORTED")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    out["dangling.png"] = "VANISHED"
    (folder / "itself.png").symlink_to(folder / "itself.png")
    out["itself.png"] = "LINK_LOOP"
    os.mkfifo(folder / "pipe.png")
    out["pipe.png"] = "NOT_AN_IMAGE"
    bad("=cmd()\n.png", b"", "NOT_AN_IMAGE")
    assert len(out) == 20
    return out


def bomb(side: int) -> bytes:
    """A true picture of side x side black pixels, one bit each."""
    deflate = zlib.compressobj(1)
    rows = bytes(1 + (side + 7) // 8) * 100
    body = b"".join(deflate.compress(rows) for _ in range(side // 100)) + deflate.flush()
    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])

    def chunk(kind: bytes, values: bytes) -> bytes:
        return len(values).to_bytes(4, "big") + kind + values + zlib.crc32(kind + values).to_bytes(4, "big")

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_thousand_good_and_twenty_bad(tmp_path: Path) -> None:
    """FAULTS 1, 2, 7, 9: every bad one by name and reason, and the good ones whole."""
    folder = tmp_path / "set"
    folder.mkdir()
    good = {}
    for k in range(1000):
        values = noise(32, 32, 3)
        good[f"good-{k:04d}.png"] = values
        put(folder / f"good-{k:04d}.png", values)
    bad = twenty_bad(folder)
    for name in ("notes.txt", "list.json", "Thumbs.db", ".DS_Store", "._good-0001.png"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        opened(folder, tmp_path)
    assert caught.value.exit_code == 3
    assert "19 of 1,019" in str(caught.value) or "20 of 1,020" in str(caught.value)
    assert "allow_rejects = 0.02" in str(caught.value)
    got = opened(folder, tmp_path, allow_rejects=0.02)
    assert codes(got) == bad
    assert got.audit.ignored == {".txt": 1, ".json": 1, ".db": 1, "hidden files": 2}
    assert list(got.names) == sorted(good)
    assert all(np.array_equal(item, good[name]) for name, item in zip(got.names, got.items, strict=True))
    path = write_rejects(got, tmp_path / "rejects.csv")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "reason", "detail"]
    assert len(rows) == 21
    assert ["'=cmd()\\n.png", "NOT_AN_IMAGE", "empty file"] in rows
    with pytest.raises(UsageError, match="already there"):
        write_rejects(got, path)
    text = report(got)
    assert all(code in text for code in set(bad.values()))
    assert "\n.png" not in text


def test_columns_stay_with_their_pictures_when_others_are_left_out(tmp_path: Path) -> None:
    for k in range(9):
        put(tmp_path / "set" / f"{k}.png", np.full((4, 4, 1), k, np.uint8))
    for k in (0, 4, 5):
        (tmp_path / "set" / f"{k}.png").write_bytes(b"")
    rows = "".join(f"{k}.png,text {k},class {k}\n" for k in range(9))
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text,label\n" + rows)
    got = opened(tmp_path / "set", tmp_path, allow_rejects=0.5)
    shown = got.items[:, 0, 0, 0].tolist()
    assert shown == [1, 2, 3, 6, 7, 8]
    assert got.columns["text"].tolist() == [f"text {k}" for k in shown]
    assert [got.classes[label] for label in got.columns["label"]] == [f"class {k}" for k in shown]
    assert list(got.names) == [f"{k}.png" for k in shown]


def test_one_in_a_hundred_is_let_through(tmp_path: Path) -> None:
    for k in range(99):
        put(tmp_path / "set" / f"{k:02d}.png", noise(4, 4, 1))
    (tmp_path / "set" / "bad.png").write_bytes(b"")
    assert codes(opened(tmp_path / "set", tmp_path)) == {"bad.png": "NOT_AN_IMAGE"}
    (tmp_path / "set" / "bad-2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 101"):
        opened(tmp_path / "set", tmp_path)


def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    """FAULT 7, in a process of its own, where the high-water mark is the reader's."""
    folder = tmp_path / "set"
    put(folder / "good.png", noise(32, 32, 3))
    (folder / "bomb.png").write_bytes(bomb(40_000))
    script = (
        "import resource, sys, langevin.data as data\n"
        "from langevin.data.sources import folder\n"
        "mark = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "data.open(sys.argv[1] + '/only', cache=sys.argv[2])\n"
        "before = mark()\n"
        "got = data.open(sys.argv[1], cache=sys.argv[2], allow_rejects=0.5)\n"
        "print(mark() - before, [r.code for r in got.audit.rejects], 'torch' in sys.modules)\n"
    )
    put(folder / "only" / "good.png", noise(32, 32, 3))
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "cache")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    grown, _, rest = done.stdout.partition(" ")
    assert float(grown) < 50
    assert rest.strip() == "['TOO_MANY_PIXELS'] False"


def test_link_loops_odd_names_and_closed_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULT 9."""
    folder = tmp_path / "set"
    names = ["emoji-\U0001f600.png", "new\nline.png", "quote'\".png", "=1+1.png", " space .png", "\u202eright.png"]
    for name in names:
        put(folder / name, noise(4, 4, 1))
    with open(os.fsencode(folder) + b"/not-utf8-\xff.png", "wb") as file:  # noqa: PTH123 - such names are the test
        file.write(png.encoded(noise(4, 4, 1)))
    (folder / "again").symlink_to(folder)
    (folder / "closed").mkdir()
    put(tmp_path / "elsewhere" / "linked.png", noise(4, 4, 1))
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    scan = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    got = opened(folder, tmp_path)
    assert set(got.names) == {*names, "not-utf8-\udcff.png", "link/linked.png"}
    assert codes(got) == {"again/": "LINK_LOOP", "closed/": "UNREADABLE_FOLDER"}
    report(got).encode()
    write_rejects(got, tmp_path / "rejects.csv")
    again = opened(folder, tmp_path)
    assert again.fingerprint == got.fingerprint


def test_files_that_vanish_or_change_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULT 10: read again once, then left out by name."""
    folder = tmp_path / "set"
    for k in range(4):
        put(folder / f"{k}.png", noise(4, 4, 1))
    read, looks = Path.read_bytes, {"1.png": 0, "2.png": 0, "3.png": 0}

    def read_bytes(path: Path) -> bytes:
        if path.parent == folder and path.name in looks:
            looks[path.name] += 1
            if path.name == "1.png" and looks["1.png"] == 1:
                raise FileNotFoundError(2, "No such file or directory")  # back at the second look
            if path.name == "2.png":
                path.unlink(missing_ok=True)
            if path.name == "3.png" and looks["3.png"] > 1:
                return png.encoded(noise(4, 4, 1))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    got = opened(folder, tmp_path, allow_rejects=0.6)
    assert list(got.names) == ["0.png", "1.png"]
    assert codes(got) == {"2.png": "VANISHED", "3.png": "CHANGED"}


def test_nothing_usable_and_too_few(tmp_path: Path) -> None:
    """FAULT 12."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no usable pictures: 0 found"):
        opened(tmp_path / "empty", tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_bytes(b"")
    (tmp_path / "bad" / "readme.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 found \(1 NOT_AN_IMAGE\), 1 other file") as caught:
        opened(tmp_path / "bad", tmp_path, allow_rejects=1.0)
    assert caught.value.exit_code == 3
    (tmp_path / "bad" / "array.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"the folder holds \.npz files"):
        opened(tmp_path / "bad", tmp_path, allow_rejects=1.0)
    put(tmp_path / "one" / "1.png", noise(4, 4, 1))
    got = opened(tmp_path / "one", tmp_path)
    assert len(got) == 1
    assert got.train_indices.tolist() == [0]
    got.require(1)
    with pytest.raises(DataError, match="1 item to train on, but one batch needs 64"):
        got.require(64)
    with pytest.raises(UsageError, match="did you mean `digits`"):
        data.open(tmp_path / "digit")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="no kind of data"):
        data.open(tmp_path / "notes.txt")


def test_zip_reads_like_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        put(folder / name, noise(4, 4, 3))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
        archive.writestr("__MACOSX/photos/a/._1.png", b"x")
    one, other = opened(folder, tmp_path), opened(tmp_path / "set.zip", tmp_path)
    assert np.array_equal(one.items, other.items)
    assert one.fingerprint == other.fingerprint
    assert other.classes == ("a", "b")
    assert list(other.names) == [f"photos/{name}" for name in one.names]


def test_zips_that_reach_out_or_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "escaped.png"
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as archive:
        archive.writestr("good.png", png.encoded(noise(4, 4, 1)))
        for name in ("../escaped.png", "/escaped.png", "a/../../escaped.png", "C:/escaped.png"):
            archive.writestr(name, png.encoded(noise(4, 4, 1)))
    before = sorted(tmp_path.iterdir())
    got = opened(tmp_path / "slip.zip", tmp_path, allow_rejects=0.9)
    assert list(got.names) == ["good.png"]
    assert list(codes(got).values()) == ["UNSAFE_NAME"] * 4
    assert not outside.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "cache"])
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(RefusedError):
        opened(tmp_path / "no.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for k in range(12):
            archive.writestr(f"{k}.png", bytes(10 << 20))
    monkeypatch.setattr(tree, "_GROWTH_MINDED", 100 << 20)
    with pytest.raises(RefusedError, match="would grow"):
        opened(tmp_path / "bomb.zip", tmp_path)


def test_mixed_sets_become_their_union(tmp_path: Path) -> None:
    """FAULT 4: grey, colour, transparency; kept, or on a matte."""
    grey, colour, clear = noise(4, 4, 1), noise(4, 4, 3), noise(4, 4, 4)
    clear[0, 0, 3], clear[1:, 1:, 3] = 0, 255
    put(tmp_path / "grey" / "1.png", grey)
    assert opened(tmp_path / "grey", tmp_path).shape == (4, 4, 1)
    put(tmp_path / "mixed" / "1.png", grey)
    put(tmp_path / "mixed" / "2.png", colour)
    got = opened(tmp_path / "mixed", tmp_path)
    assert np.array_equal(got.items[0], grey.repeat(3, -1))
    assert np.array_equal(got.items[1], colour)
    assert any("1 picture grey among colour" in note for note in got.audit.notes)
    opaque = clear.copy()
    opaque[..., 3] = 255
    put(tmp_path / "mixed" / "3.png", opaque)
    assert opened(tmp_path / "mixed", tmp_path).shape == (4, 4, 3)
    put(tmp_path / "mixed" / "4.png", clear)
    got = opened(tmp_path / "mixed", tmp_path)
    assert got.audit.transparency
    assert np.array_equal(got.items[0], np.dstack([grey] * 3 + [np.full((4, 4, 1), 255, np.uint8)]))
    assert np.array_equal(got.items[3], np.where(clear[..., 3:] == 0, 0, clear))
    got = opened(tmp_path / "mixed", tmp_path, matte="white")
    alpha = clear[..., 3:] / 255
    assert got.shape == (4, 4, 3)
    assert np.abs(got.items[3] - (clear[..., :3] * alpha + 255 * (1 - alpha))).max() <= 0.5 + 1e-9
    assert any("transparent, put on" in note for note in got.audit.notes)


def test_16_bits_among_8_keep_all_levels(tmp_path: Path) -> None:
    """FAULT 3: 65,536 levels from the file to the cache to the model's range and back."""
    import torch

    from langevin.data.modality.image import Image as ImageModality

    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    shades = np.arange(256, dtype=np.uint8).repeat(256).reshape(256, 256, 1)
    put(tmp_path / "set" / "1.png", ramp)
    put(tmp_path / "set" / "2.png", shades)
    got = opened(tmp_path / "set", tmp_path)
    assert got.items.dtype == np.uint16
    assert np.array_equal(got.items[0], ramp)
    assert np.array_equal(got.items[1], shades * np.uint16(257))  # white stays white
    codec = ImageModality().codec(got)
    assert codec.config["dtype"] == "uint16"
    raw = torch.from_numpy(np.array(got.items))
    assert np.array_equal(codec.decode(codec.encode(raw)).numpy(), got.items)
    colour = RANDOM.permutation(65536).astype(np.uint16)[: 3 * 128 * 128].reshape(128, 128, 3)
    put(tmp_path / "colour" / "1.png", colour)
    assert np.array_equal(opened(tmp_path / "colour", tmp_path).items[0], colour)


def test_sizes_are_chosen_and_said(tmp_path: Path) -> None:
    """FAULT 8."""
    for k in range(20):
        put(tmp_path / "set" / f"{k:02d}.png", noise(40 + k, 45, 3))
    put(tmp_path / "set" / "panorama.png", noise(30, 90, 3))
    put(tmp_path / "set" / "point.png", np.full((1, 1, 3), 77, np.uint8))
    got = opened(tmp_path / "set", tmp_path)
    assert got.shape == (40, 40, 3)
    notes = " ".join(got.audit.notes)
    assert "was chosen" in notes
    assert "1 picture more than twice as long as wide" in notes
    assert "enlarged" in notes
    places = {name: k for k, name in enumerate(got.names)}
    assert (got.items[places["point.png"]] == 77).all()
    got = opened(tmp_path / "set", tmp_path, size=16)
    assert got.shape == (16, 16, 3)
    padded = opened(tmp_path / "set", tmp_path, size=30, fit="pad", matte="#102030")
    panorama = padded.items[places["panorama.png"]]
    assert (panorama[:10] == (0x10, 0x20, 0x30)).all()
    assert (panorama[20:] == (0x10, 0x20, 0x30)).all()
    assert panorama[10:20].std() > 10
    for k in range(20, 40):
        put(tmp_path / "set" / f"{k:02d}.png", noise(50, 45, 3))
    kept = opened(tmp_path / "set", tmp_path, fit="skip")
    assert kept.shape == (50, 45, 3)
    assert len(kept) == 21
    assert codes(kept)["point.png"] == "SKIPPED_SIZE"


def test_crop_takes_the_middle_and_lanczos_is_pillows(tmp_path: Path) -> None:
    wide = 100 + noise(64, 192, 3) // 4  # no overshoot, which Pillow clips between its two passes
    put(tmp_path / "set" / "1.png", wide)
    got = opened(tmp_path / "set", tmp_path, size=64)
    assert np.array_equal(got.items[0], wide[:, 64:128])
    half = opened(tmp_path / "set", tmp_path, size=32).items[0].astype(int)
    theirs = np.asarray(Image.fromarray(wide[:, 64:128]).resize((32, 32), Image.Resampling.LANCZOS), int)
    assert np.abs(half[3:-3, 3:-3] - theirs[3:-3, 3:-3]).max() <= 1


def test_large_jpegs_are_resized_as_if_decoded_in_full(tmp_path: Path) -> None:
    y, x = np.mgrid[:600, :800] / 100
    smooth = (127 + 60 * np.stack([np.sin(x + y), np.cos(x), np.sin(y * 2)], -1)).astype(np.uint8)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(jpeg(smooth, quality=98, subsampling=0))
    got = opened(folder, tmp_path, size=48).items[0].astype(int)
    theirs = np.asarray(Image.fromarray(smooth[:, 100:700]).resize((48, 48), Image.Resampling.LANCZOS), int)
    assert np.abs(got - theirs).max() <= 6
    cut = (folder / "1.jpg").read_bytes()
    (folder / "2.jpg").write_bytes(cut[: len(cut) // 2])
    assert codes(opened(folder, tmp_path, size=48, allow_rejects=0.5)) == {"2.jpg": "TRUNCATED"}


def test_what_is_transparent_does_not_bleed_when_resized(tmp_path: Path) -> None:
    values = np.zeros((64, 64, 4), np.uint8)
    values[..., 1] = 255  # green where nothing is seen
    values[16:48, 16:48] = (255, 0, 0, 255)
    put(tmp_path / "set" / "1.png", values)
    got = opened(tmp_path / "set", tmp_path, size=24).items[0]
    seen = got[..., 3] > 8
    assert (got[..., 3] % 255 != 0).any()
    assert (got[seen][:, 0] > 240).all()
    assert (got[seen][:, 1] < 15).all()
    assert (got[got[..., 3] == 0] == 0).all()


def test_animations_first_or_all(tmp_path: Path) -> None:
    """FAULT 6."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    (tmp_path / "set").mkdir()
    frames[0].save(tmp_path / "set" / "a.gif", save_all=True, append_images=frames[1:])
    put(tmp_path / "set" / "b.png", noise(8, 8, 3))
    got = opened(tmp_path / "set", tmp_path)
    assert list(got.names) == ["a.gif", "b.png"]
    assert (got.items[0] == (255, 0, 0)).all()
    assert any("1 picture animated: first frame only" in note for note in got.audit.notes)
    got = opened(tmp_path / "set", tmp_path, frames="all")
    assert list(got.names) == ["a.gif#0", "a.gif#1", "a.gif#2", "b.png"]
    assert (got.items[2] == (0, 0, 255)).all()
    assert got.shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": 0}, "size"),
        ({"size": (3, 4, 5)}, "size"),
        ({"fit": "corp"}, "did you mean `crop`"),
        ({"matte": "whitee"}, "matte"),
        ({"frames": "some"}, "frames"),
        ({"allow_rejects": 3}, "allow_rejects"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict, match: str) -> None:
    put(tmp_path / "set" / "1.png", noise(4, 4, 1))
    with pytest.raises(UsageError, match=match):
        opened(tmp_path / "set", tmp_path, **options)
    assert not (tmp_path / "cache").exists()


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "set" / "1.png", noise(4, 4, 1))
    put(tmp_path / "set" / "2.png", noise(4, 4, 1))
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "2.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert codes(opened(tmp_path / "set", tmp_path, allow_rejects=0.5)) == {"2.png": "UNREADABLE"}


def test_what_is_read_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tree, "MAX_BYTES", 1000)
    put(tmp_path / "set" / "1.png", noise(4, 4, 1))
    put(tmp_path / "set" / "2.png", noise(64, 64, 3))
    got = opened(tmp_path / "set", tmp_path, allow_rejects=0.5)
    assert codes(got) == {"2.png": "TOO_LARGE"}
    assert gather._WORKERS == 2

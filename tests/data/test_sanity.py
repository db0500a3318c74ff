"""What is wrong with a set is said before anything is trained on it, with the item that is to blame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langevin import data
from langevin.data import sanity
from langevin.data.audit import report
from langevin.data.dataset import Dataset
from langevin.errors import DataError

RANDOM = np.random.default_rng(0)


def opened(values: np.ndarray, tmp_path: Path, **options: object) -> Dataset:
    np.save(tmp_path / "set.npy", values)
    return data.open(tmp_path / "set.npy", **options)


def test_a_value_that_is_not_finite_is_named_with_its_item_and_its_place(tmp_path):
    values = RANDOM.random((300, 8, 6, 3), dtype=np.float32)
    values[17, 5, 2, 1], values[17, 7, 0, 0] = np.nan, np.inf
    got = opened(values, tmp_path)
    assert len(got) == 299
    assert got.audit.rejects[0] == ("set.npy[17]", "NOT_FINITE", "nan at row 5, column 2, channel 1 and 1 more value")
    values[:30, 0, 0, 0] = -np.inf
    with pytest.raises(DataError, match=r"set.npy\[0\]': NOT_FINITE -inf at row 0, column 0, channel 0") as caught:
        opened(values, tmp_path)
    assert caught.value.exit_code == 3


def test_the_place_in_a_picture_file(tmp_path):
    picture = RANDOM.random((8, 8), dtype=np.float32)
    for k in range(4):
        Image.fromarray(picture + k).save(tmp_path / f"{k}.tiff")
    picture[3, 4] = np.nan
    Image.fromarray(picture).save(tmp_path / "9.tiff")
    got = data.open(tmp_path, allow_rejects=1.0)
    assert [tuple(r) for r in got.audit.rejects] == [("9.tiff", "NOT_FINITE", "nan at row 3, column 4")]


@pytest.mark.parametrize(
    ("factor", "said"),
    [(255.0, "far beyond"), (1 / 300, "far below"), (1.0, None), (50.0, None), (0.0, None), (1000.0, "far beyond")],
)
def test_items_of_another_scale_are_named(tmp_path, factor, said):
    """A black picture among others is none of another scale."""
    values = RANDOM.random((120, 8, 8), dtype=np.float32)
    values[33] *= factor
    lines = list(sanity.remarks(opened(values, tmp_path)))
    if said is None:
        assert lines == []
    else:
        assert said in lines[0]
        assert f"set.npy[33] reaches {values[33].max():g}" in lines[0]
        assert lines[0] in report(opened(values, tmp_path))


def test_pictures_that_are_all_one_flat_picture_are_refused(tmp_path):
    for dtype, value in ((np.uint8, 7), (np.float32, 0.25), (np.uint16, 65535)):
        constant = opened(np.full((20, 4, 4, 3), value, dtype), tmp_path)
        with pytest.raises(DataError, match=f"20 items are the same flat picture, {value:g}, {value:g}, {value:g}"):
            sanity.refuse_constant(constant)
    values = np.full((20, 4, 4, 3), 7, np.uint8)
    values[3, 0, 0, 2] = 8
    almost = opened(values, tmp_path)
    sanity.refuse_constant(almost)
    assert "channel 0, 1 is constant" in report(almost)


def test_what_can_be_learned_still_is_said(tmp_path):
    flat = np.broadcast_to(RANDOM.integers(0, 255, (40, 1, 1, 3), np.uint8), (40, 6, 6, 3)).copy()
    assert "of one colour all over" in next(sanity.remarks(opened(flat, tmp_path)))
    flat[::2, 0, 0] ^= 1
    assert list(sanity.remarks(opened(flat, tmp_path))) == []
    one = np.broadcast_to(RANDOM.integers(0, 255, (1, 6, 6, 3), np.uint8), (40, 6, 6, 3)).copy()
    assert "one and the same picture" in next(sanity.remarks(opened(one, tmp_path)))

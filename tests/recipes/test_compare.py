"""A comparison shows the samples that `sample` gives, and measures them by the fine solution."""

from pathlib import Path

import numpy as np
import pytest

from langevin.data.show import grid
from langevin.errors import UsageError
from langevin.evaluation.sheets import MARGIN, TITLE, comparison
from langevin.model import load
from langevin.recipes.compare import FINE, OWN, compare
from tests.models import small_model


@pytest.fixture
def run(in_tmp) -> Path:
    small_model().save(in_tmp / "runs/small-1/model")
    return Path("runs/small-1")


def test_cells_are_the_samples_of_their_seeds(run, in_tmp):
    said: list[str] = []
    sheet, cells = compare(run, n=5, seed=3, solvers=["heun", "ancestral"], evaluations=[8, 5], say=said.append)
    assert sheet.is_file() and [(c.solver, c.evaluations) for c in cells] == [
        (OWN, 5), (OWN, 8), ("heun", 3), ("heun", 7), ("ancestral", 5), ("ancestral", 8),
    ]  # fmt: skip
    model = load(run)
    for cell, solver, steps in ((cells[0], None, 5), (cells[3], "heun", 4), (cells[5], "ancestral", 8)):
        expected = model.sample(5, seed=3, steps=steps, solver=solver)[:4]
        assert np.array_equal(cell.items.squeeze(), expected.squeeze())
    assert f"{cells[3].distance:9.4f}" in said[0]


def test_the_fine_solution_is_no_distance_from_itself_and_more_steps_come_nearer(run, in_tmp):
    _, cells = compare(run, n=4, solvers=["ancestral"], evaluations=[4, 60, FINE], say=lambda _: None)
    own, ancestral = cells[:3], cells[3:]
    for row in (own, ancestral):
        assert row[2].distance == 0
        assert row[1].distance < row[0].distance / 2


def test_what_cannot_be_compared_is_told(run, in_tmp):
    for given, says in (
        ({"evaluations": [0]}, "between 1 and 200"),
        ({"n": 0}, "1 to 1,024"),
        ({"solvers": ["dpmp"]}, "dpmpp"),
        ({"out": Path("x.npz")}, "one sheet"),
    ):
        with pytest.raises(UsageError) as raised:
            compare(run, say=lambda _: None, **given)
        assert says in str(raised.value) + (raised.value.help or "")
    Path("taken.png").write_bytes(b"")
    with pytest.raises(UsageError):
        compare(run, out=Path("taken.png"), say=lambda _: None)


def test_every_picture_lies_in_its_row_and_column():
    cells = list(np.random.default_rng(0).integers(0, 256, (6, 2, 8, 8, 1), dtype=np.uint8))
    sheet = np.asarray(comparison(cells, ["one", "two"], ["a", "b", "c"], ["x"] * 6))
    tiles = [np.asarray(grid(cell)) for cell in cells]
    height, width = tiles[0].shape[:2]
    for k, tile in enumerate(tiles):
        row, column = divmod(k, 3)
        right = sheet.shape[1] - (3 - column) * (width + MARGIN)
        top = TITLE + row * (height + TITLE)
        assert np.array_equal(sheet[top : top + height, right : right + width], tile)
        below = sheet[top + height : top + height + TITLE, right : right + width]
        assert (below < 128).any()  # its caption

"""Features against scikit-learn, closed forms and the symmetries of pictures."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from langevin.errors import DataError
from langevin.evaluation.features import Features, Gradients, Pca, _area
from langevin.registry import names

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def digits():
    return (load_digits().images * 15).astype(np.uint8)[..., None]


def split(described, channels):
    """Description (N, 160 + 32 C) -> slopes on 4 x 4, slopes at half size on 2 x 2, means and deviations on 4 x 4."""
    sizes = np.cumsum([128, 32, 16 * channels])
    fine, coarse, mean, std = np.split(described, sizes, axis=1)
    n = len(described)
    return fine.reshape(n, 8, 4, 4), coarse.reshape(n, 8, 2, 2), mean.reshape(n, -1, 4, 4), std.reshape(n, -1, 4, 4)


@pytest.mark.parametrize(("size", "cells"), [(8, 4), (10, 4), (9, 5), (28, 4), (7, 7), (33, 32)])
def test_area_averages_equal_those_of_repeated_pixels(size, cells):
    row = np.random.default_rng(size).normal(size=size)
    assert _area(size, cells) @ row == pytest.approx(np.repeat(row, cells).reshape(cells, size).mean(1), abs=1e-12)


def test_pca_is_scikit_learns(digits):
    train, new = digits[:1000], digits[1000:]
    features = Pca.fit(train, 20)
    peer = PCA(20, svd_solver="full").fit(train.reshape(1000, -1) / 255)
    theirs = peer.transform(new.reshape(len(new), -1) / 255)
    ours = features(new)
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-9)
    np.testing.assert_allclose(features(train).var(0, ddof=1), peer.explained_variance_, rtol=1e-9)


def test_large_pictures_are_averaged_before_pca():
    small = RNG.integers(0, 256, (30, 32, 32, 1), dtype=np.uint8)
    np.testing.assert_allclose(Pca.describe(small.repeat(2, 1).repeat(2, 2)), Pca.describe(small), atol=1e-12)


def test_pca_takes_any_shape():
    table = RNG.normal(size=(50, 6)).astype(np.float32)
    features = Pca.fit(table)
    distances = np.linalg.norm(table[1:] - table[:-1], axis=1)  # all six dimensions are kept: a rotation
    np.testing.assert_allclose(np.linalg.norm(np.diff(features(table), axis=0), axis=1), distances, rtol=1e-5)


def test_a_ramp_has_one_slope_in_every_cell():
    """Intensity 0.01 x - 0.02 y: max(0, g . u_k) of g = (0.01, -0.02), doubled at half the size."""
    y, x = np.mgrid[:16, :24]
    fine, coarse, _, _ = split(Gradients.describe((0.5 + 0.01 * x - 0.02 * y)[None, ..., None]), 1)
    angles = np.arange(8) * np.pi / 4
    slopes = np.maximum(0, 0.01 * np.cos(angles) - 0.02 * np.sin(angles))
    np.testing.assert_allclose(fine[0], np.broadcast_to(slopes[:, None, None], (8, 4, 4)), atol=1e-12)
    np.testing.assert_allclose(coarse[0], np.broadcast_to(2 * slopes[:, None, None], (8, 2, 2)), atol=1e-12)


def test_a_shift_of_intensity_moves_the_means_alone():
    items = RNG.uniform(size=(5, 11, 9, 2))
    before, after = (split(Gradients.describe(x), 2) for x in (items, items + 0.25))
    for k in (0, 1, 3):
        np.testing.assert_allclose(after[k], before[k], atol=1e-7)  # the deviations pass through a square root
    np.testing.assert_allclose(after[2], before[2] + 0.25, atol=1e-12)


@pytest.mark.parametrize(
    ("move", "cells", "direction"),
    [
        (lambda x: x[:, :, ::-1], lambda c: c[..., ::-1], lambda k: (4 - k) % 8),  # left and right exchanged
        (lambda x: x[:, ::-1], lambda c: c[..., ::-1, :], lambda k: -k % 8),  # up and down
        (lambda x: x.swapaxes(1, 2), lambda c: c.swapaxes(-1, -2), lambda k: (2 - k) % 8),  # transposed
        (lambda x: 1 - x, lambda c: c, lambda k: (k + 4) % 8),  # negative
    ],
)
def test_a_mirrored_picture_has_its_directions_and_cells_exchanged(move, cells, direction):
    items = RNG.uniform(size=(4, 13, 10, 1))
    order = [direction(k) for k in range(8)]
    for before, after in zip(
        split(Gradients.describe(items), 1)[:2], split(Gradients.describe(move(items)), 1)[:2], strict=True
    ):
        np.testing.assert_allclose(after, cells(before)[:, order], atol=1e-12)


def test_moments_of_cells_are_numpys():
    items = RNG.uniform(size=(3, 8, 12, 2))
    _, _, mean, std = split(Gradients.describe(items), 2)
    tiles = items.reshape(3, 4, 2, 4, 3, 2)
    np.testing.assert_allclose(mean, np.moveaxis(tiles.mean((2, 4)), -1, 1), atol=1e-12)
    np.testing.assert_allclose(std, np.moveaxis(tiles.std((2, 4)), -1, 1), atol=1e-12)


def test_fitted_gradients_have_unit_variance_in_all_before_projection():
    train = RNG.integers(0, 256, (600, 9, 9, 1), dtype=np.uint8)
    features = Gradients.fit(train, 192)
    assert features(train).var(0, ddof=1).sum() == pytest.approx(192, rel=1e-9)
    np.testing.assert_allclose(features.basis.T @ features.basis, np.eye(192), atol=1e-9)


@pytest.mark.parametrize("kind", [Pca, Gradients])
def test_types_mean_the_same_picture(kind):
    floats = PICTURES / 255
    expected = kind.describe(floats)
    np.testing.assert_allclose(kind.describe(PICTURES), expected, atol=1e-12)
    np.testing.assert_allclose(kind.describe(PICTURES.astype(np.uint16) * 257), expected, atol=1e-12)


@pytest.mark.parametrize("kind", [Pca, Gradients])
def test_an_item_is_described_alone_as_among_others(kind, monkeypatch):
    features = kind.fit(PICTURES, 8)
    together = features(PICTURES)
    monkeypatch.setattr("langevin.evaluation.features.CHUNK_VALUES", 1)
    np.testing.assert_allclose(features(PICTURES), together, atol=1e-12)
    np.testing.assert_allclose(kind.fit(PICTURES, 8)(PICTURES), together, atol=1e-9)


def test_the_digest_follows_definition_data_and_dimension():
    base = Gradients.fit(PICTURES, 8).digest
    assert Gradients.fit(PICTURES.copy(), 8).digest == base
    others = {Gradients.fit(PICTURES, 7).digest, Pca.fit(PICTURES, 8).digest, Gradients.fit(PICTURES[::-1], 8).digest}
    assert len(others - {base}) == 3


def test_constant_values_are_no_trouble():
    flat = PICTURES.copy()
    flat[:, :6] = 7
    assert np.isfinite(Gradients.fit(flat)(flat)).all()
    assert Pca.fit(np.zeros((5, 8, 8, 1), np.uint8))(flat[:, :8, :8, :1]).shape == (40, 4)


def test_dimension_stays_below_count():
    assert Pca.fit(PICTURES[:10]).dim == 9
    assert Pca.fit(PICTURES, 64).dim == 39


def test_what_cannot_be_described_is_said():
    with pytest.raises(DataError, match="8 x 8"):
        Gradients.describe(PICTURES[:, :7])
    with pytest.raises(DataError, match="no known range"):
        Pca.describe(PICTURES.astype(np.int64))
    with pytest.raises(DataError, match="two items"):
        Pca.fit(PICTURES[:1])


def test_features_are_found_by_name():
    assert names("langevin.evaluation.features", Features) == {"pca": Pca, "gradients": Gradients}

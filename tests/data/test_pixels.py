"""The codec of pixels: exact both ways for every level."""

import numpy as np
import pytest
import torch

from langevin.data.codec.pixels import Pixels
from langevin.errors import UsageError


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_every_level_comes_back_and_lies_where_the_formula_says(dtype: str, top: int) -> None:
    levels = np.arange(top + 1, dtype=dtype)
    x = torch.from_numpy(levels.reshape(1, 1, -1, 1))
    codec = Pixels(dtype=dtype, channels=1)
    z = codec.encode(x)
    assert z.shape == (1, 1, 1, top + 1)
    assert z.dtype == torch.float32
    exact = (2 * levels.astype(np.float64) - top) / top
    assert np.abs(z.numpy().ravel() - exact).max() < 1e-7
    assert z.min() == -1
    assert z.max() == 1
    assert torch.equal(z, -z.flip(-1))
    assert len(torch.unique(z)) == top + 1
    back = codec.decode(z)
    assert back.numpy().dtype == levels.dtype
    assert np.array_equal(back.numpy(), x.numpy())


def test_every_level_survives_noise_below_half_a_level() -> None:
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    codec = Pixels(dtype="uint8", channels=1)
    noise = (torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.99 * 2 / 255
    assert torch.equal(codec.decode(codec.encode(x) + noise), x)


def test_what_leaves_the_range_is_clamped() -> None:
    z = torch.tensor([-7.0, -1.0, 1.0, 7.0, float("nan"), float("inf"), float("-inf")]).reshape(1, 1, 1, -1)
    for dtype, top in (("uint8", 255), ("uint16", 65535)):
        assert Pixels(dtype=dtype, channels=1).decode(z).flatten().tolist() == [0, 0, top, top, 0, top, 0]


def test_channels_move_and_nothing_else() -> None:
    x = torch.randint(0, 256, (3, 5, 7, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    codec = Pixels(dtype="uint8", channels=4)
    z = codec.encode(x)
    assert z.shape == (3, 4, 5, 7)
    assert torch.equal(z[1, 2, 3, 4], (2 * x[1, 3, 4, 2].float() - 255) / 255)
    assert torch.equal(codec.decode(z), x)


def test_floats_map_their_range_and_may_leave_it() -> None:
    codec = Pixels(dtype="float32", channels=2, low=-3.0, high=5.0)
    x = torch.tensor([[-3.0, 5.0], [1.0, 9.0]]).reshape(1, 1, 2, 2)
    z = codec.encode(x)
    assert z[0, :, 0, :].tolist() == [[-1.0, 0.0], [1.0, 2.0]]
    assert torch.equal(codec.decode(z), x)


def test_config_makes_the_same_codec_again() -> None:
    codec = Pixels(dtype="float32", channels=2, low=-3.0, high=5.0, squeeze=True)
    again = Pixels(**codec.config)
    x = torch.randn(2, 3, 3, 2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(again.encode(x), codec.encode(x))
    assert again.config == codec.config


def test_floats_without_a_range_are_refused() -> None:
    with pytest.raises(UsageError, match="range"):
        Pixels(dtype="float32", channels=1)
    with pytest.raises(UsageError, match="int32"):
        Pixels(dtype="int32", channels=1)

"""Bits per dimension against models whose law is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from langevin.data.codec.pixels import Pixels
from langevin.diffusion import GaussianDiffusion, NetworkDenoiser
from langevin.diffusion.parametrization import X0
from langevin.diffusion.schedules import VE
from langevin.errors import DataError, UsageError
from langevin.evaluation.likelihood import bits_per_dim, levels_of
from langevin.model import Model
from tests.models import small_model

STD = 0.3


class Linear(torch.nn.Module):
    """Of data N(0, STD^2) in model space: the exact x0_hat, from what the X0 parametrization hands in."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, c_noise, cond=None):
        ratio = torch.exp(4 * c_noise).reshape(-1, 1, 1, 1)
        return x * torch.sqrt(1 + ratio**2) * STD**2 / (STD**2 + ratio**2)


def gaussian_model(dtype: str, **codec) -> Model:
    denoiser = NetworkDenoiser(Linear(), GaussianDiffusion(VE()), X0()).requires_grad_(False)
    return Model(denoiser, Pixels(dtype=dtype, channels=1, **codec), "image", (1, 2, 3))


def drawn(num: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, STD, (num, 2, 3, 1))


def bits_of_levels(items: np.ndarray, top: int) -> np.ndarray:
    """-log2 P of each entry, P of its bin under N(0, STD^2)."""
    z = torch.from_numpy(2 * items.astype(np.float64) / top - 1)
    edge = 1 / top
    p = torch.special.ndtr((z + edge) / STD) - torch.special.ndtr((z - edge) / STD)
    return (-p.log2()).numpy().reshape(len(items), -1).mean(1)


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_bits_of_pictures_of_a_known_law(dtype: str, top: int) -> None:
    items = np.clip(np.round((drawn(300) + 1) / 2 * top), 0, top).astype(dtype)
    true = bits_of_levels(items, top)
    model = gaussian_model(dtype)
    flow = bits_per_dim(model, items[:60], method="flow", draws=0, steps=64)
    assert abs(flow.value - true[:60].mean()) < 4e-3 + flow.step_error and flow.step_error < 2e-3
    assert np.abs(flow.items - true[:60]).max() < 0.02  # dequantised by one draw
    bound = bits_per_dim(model, items, draws=48)
    each = bound.items - true
    noise = each.std() / math.sqrt(len(each))
    assert -4 * noise < each.mean() < 4 * noise + 0.02 and noise < 0.1
    assert abs(bound.error / (bound.items.std(ddof=1) / math.sqrt(300)) - 1) < 1e-9
    np.testing.assert_allclose(bound.nats, bound.items * 6 * math.log(2))
    assert f"{top + 1:,} levels" in bound.how and "dequantisation" in flow.how


def test_density_of_float_data_is_in_their_own_unit() -> None:
    model = gaussian_model("float32", low=-10.0, high=30.0)  # z = (x - 10) / 20
    z = drawn(40)
    items = (10 + 20 * z).astype(np.float32)
    density = -0.5 * (z / STD) ** 2 - math.log(20 * STD * math.sqrt(2 * math.pi))
    true = -density.reshape(40, -1).mean(1) / math.log(2)
    flow = bits_per_dim(model, items, method="flow", draws=0, steps=64)
    np.testing.assert_allclose(flow.items, true, atol=5e-3)
    bound = bits_per_dim(model, items, draws=64)
    assert abs(np.mean(bound.items - true)) < 4 * np.std(bound.items - true) / math.sqrt(40) + 5e-3
    assert "density" in bound.how


def test_an_item_alone_counts_as_in_company_and_labels_reach_the_network() -> None:
    model = small_model()
    items = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    whole = bits_per_dim(model, items, draws=4, batch=2)
    np.testing.assert_allclose(bits_per_dim(model, items[3:4], draws=4, seed=3).items, whole.items[3:4], rtol=1e-4)
    cat, dog = (bits_per_dim(model, items, name, draws=4).items for name in ("cat", "dog"))
    assert np.abs(cat - dog).min() > 1e-6
    np.testing.assert_array_equal(bits_per_dim(model, items, ["cat"] * 5, draws=4).items, cat)


def test_what_cannot_be_counted_is_said() -> None:
    model, items = small_model(), np.zeros((1, 8, 8, 1), np.uint8)
    with pytest.raises(DataError, match="uint16"):
        bits_per_dim(model, items.astype(np.uint16))
    with pytest.raises(DataError, match="not the model's"):
        bits_per_dim(model, items[:, :4])
    with pytest.raises(UsageError, match="unknown method"):
        bits_per_dim(model, items, method="guess")
    with pytest.raises(UsageError, match="one draw"):
        bits_per_dim(model, items, draws=0)
    with pytest.raises(UsageError, match="unknown label"):
        bits_per_dim(model, items, "cow")
    assert levels_of(Pixels(dtype="float32", channels=1, low=0.0, high=1.0)) is None
    squeezed = dataclasses.replace(model, codec=Pixels(dtype="uint8", channels=1, squeeze=True))
    assert bits_per_dim(squeezed, items[..., 0], draws=2).value == bits_per_dim(model, items, draws=2).value

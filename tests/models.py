"""Small models that tests make."""

import numpy as np
import torch

from langevin.data.codec.pixels import Pixels
from langevin.diffusion import GaussianDiffusion, NetworkDenoiser
from langevin.diffusion.parametrization import Karras
from langevin.diffusion.schedules import VE
from langevin.model import Model
from langevin.networks.unet import UNet


def small_model(classes: tuple[str, ...] = ("cat", "dog", "3"), *, squeeze: bool = False, seed: int = 0) -> Model:
    """A U-Net of a few thousand weights, none of them zero, on 8 x 8 grey pictures."""
    torch.manual_seed(seed)
    conditions = {"label": {"kind": "class", "num": len(classes)}} if classes else {}
    network = UNet(channels=1, dims=2, patch=1, widths=[8, 8], attention=[], conditions=conditions)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    denoiser = NetworkDenoiser(network, GaussianDiffusion(VE()), Karras(0.5))
    return Model(
        denoiser=denoiser.eval(),
        codec=Pixels(dtype="uint8", channels=1, squeeze=squeeze),
        modality="image",
        shape=(1, 8, 8),
        classes=classes,
        class_weights=tuple(float(k + 1) for k in range(len(classes))),
        sampling={"solver": "dpmpp", "steps": 4, "grid": "karras", "guidance": 1.0},
        about={"name": "small"},
    )


def digits_like(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, 8, 8) pictures of two kinds, a bright left or right half with noise, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pictures = rng.integers(0, 60, (count, 8, 8))
    for picture, label in zip(pictures, labels, strict=True):
        picture[:, 4 * label : 4 * label + 4] += 150
    return pictures.astype(np.uint8), labels

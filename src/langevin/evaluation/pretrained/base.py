"""Networks that others trained, as descriptions of pictures.

A name is a file here. A network is made from weights that the caller has; nothing is fetched unless the caller says so,
and nothing but safetensors and JSON is read. `digest` tells whether two figures are of the same features: it covers how
pictures are brought to the network and every byte of the weights.
"""

import hashlib
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.errors import DataError, UsageError, nearest
from langevin.evaluation.features import Features
from langevin.registry import find
from langevin.store import digest

Array = NDArray[np.float64]
Items = NDArray[Any]
Pictures = NDArray[np.uint8]
Span = tuple[float, float]


class Pretrained(Features):
    """A network with its weights, used as `network(items)`. Made by `pretrained`.

    digest: sha256 of the definition (name, resize, quantisation, layer) and of the files that it was made of.
    dim: values of a picture.
    frechet_name: what a Frechet distance of these features is called. "fid" and "clean-fid" are Inception's alone.
    """

    @abstractmethod
    def embed(self, pictures: Pictures) -> Tensor:
        """uint8 RGB (n, H, W, 3) -> features (n, dim) float32, as one batch."""

    def __call__(self, items: Items, batch: int = 32, span: Span | None = None) -> Array:
        """Pictures (N, H, W[, C]) -> features (N, dim) float64.

        Args:
            items: uint8 or uint16, or floats with a span; C is 1 (grey), 3 (RGB) or 4 (RGB and alpha).
            batch: pictures at once; it changes no more than rounding.
            span: what black and white are in floats.

        Raises:
            DataError: no such pictures.
        """
        items = np.asarray(items)
        return in_batches(self.embed, lambda part: as_pictures(part, span), items, batch, self.dim)


def in_batches(work: Callable[[Any], Tensor], prepare: Callable[[Any], Any], items: Any, batch: int, dim: int) -> Array:
    """`work(prepare(part))` over parts of `batch` items: (N, dim) float64, in full float32 on every device."""
    if batch < 1:
        raise UsageError(f"a batch of {batch} items")
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        parts = [
            work(prepare(items[start : start + batch])).double().cpu().numpy() for start in range(0, len(items), batch)
        ]
    return np.concatenate([np.empty((0, dim)), *parts])


def as_pictures(items: Items, span: Span | None = None) -> Pictures:
    """Items (N, H, W[, C]) -> uint8 RGB (N, H, W, 3).

    Grey is repeated, 16 bits count by their high byte, what is transparent lies on white. Floats go from `span` to 0..255,
    rounded, what is outside clipped. Raises DataError.
    """
    items = np.asarray(items)
    items = items[..., None] if items.ndim == 3 else items
    if items.ndim != 4 or items.shape[-1] not in (1, 3, 4) or 0 in items.shape[1:]:
        raise DataError(
            f"pictures are (N, H, W), or (N, H, W, C) with C 1, 3 or 4, not {items.shape}",
            help="which three channels would be colours is not known",
        )
    if items.dtype.kind == "f":
        items = _from_floats(items, span)
    elif items.dtype == np.uint16:
        items = (items >> 8).astype(np.uint8)
    elif items.dtype != np.uint8:
        raise DataError(f"pictures of type {items.dtype} have no known range", help="give uint8, uint16 or floats")
    if items.shape[-1] == 4:
        alpha = items[..., 3:].astype(np.float32) / 255
        return np.asarray(np.rint(items[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))
    return np.repeat(items, 3, -1) if items.shape[-1] == 1 else items


def _from_floats(items: Items, span: Span | None) -> Pictures:
    if span is None:
        raise DataError(
            f"pictures of type {items.dtype} have no known range: 0 to 1, -1 to 1 and 0 to 255 are all in use",
            help="say what black and white are: span=(0, 1)",
        )
    low, high = span
    if not low < high:
        raise DataError(f"a span goes from a lower to a higher value, not from {low} to {high}")
    if not np.isfinite(items).all():
        raise DataError("pictures hold values that are not finite")
    return np.asarray(np.rint(255 * np.clip((items.astype(np.float64) - low) / (high - low), 0, 1)).astype(np.uint8))


def digest_of(definition: str, files: Iterable[Path]) -> str:
    """sha256 of a definition and of files, by their names and bytes."""
    lines = [definition, *(f"{file.name} {digest(file)}" for file in files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pretrained(name: str, weights: Path | str, **settings: Any) -> Pretrained:
    """The network `name` ("inception", "dinov2", "clip", or one's own "package.module:Class") with its weights.

    Args:
        weights: inception: a .safetensors file. dinov2, clip: a folder as `transformers` writes it, or the name of one.
        settings: device="cpu"; inception: resize="legacy" or "clean"; dinov2, clip: download=False, revision=None.

    Raises:
        UsageError: unknown name or setting, weights that are not there, a package that is missing.
        RefusedError: weights of a kind that could run code, damaged ones, or those of another network.
    """
    kind: Callable[..., Pretrained] = find("langevin.evaluation.pretrained", name, Pretrained)  # type: ignore[type-abstract]
    known = inspect.signature(kind).parameters
    for key in settings:
        if key not in known:
            raise UsageError(f"`{name}` has no setting `{key}`", help=nearest(key, known))
    return kind(weights, **settings)

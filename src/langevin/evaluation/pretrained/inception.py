"""Inception-v3 as FID takes it: the graph that TensorFlow published on 2015-12-05, 2048 values after the last pooling.

Szegedy et al. 2015 (arXiv:1512.00567) with the ways of that graph: means at the border are over pixels of the picture
alone, the last block pools by maximum, 1008 classes, normalisation with epsilon 0.001. A Frechet distance of these
features is the FID of Heusel et al. 2017 (arXiv:1706.08500); pictures come to the network's 299 x 299 in one of two ways,
which are two figures:

    legacy  "fid"        bilinear as TensorFlow 1 had it: pixel i of 299 is read at i * size / 299, without smoothing
    clean   "clean-fid"  bicubic with smoothing, in floats, clipped to 0..255 (Parmar et al. 2022, arXiv:2104.11222)

Neither is rounded again; then x -> (x - 128) / 128. Weights have the names of `pt_inception-2015-12-05-6726825d.pth`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from langevin.errors import DataError, RefusedError, UsageError
from langevin.evaluation.pretrained.base import Array, Pictures, Pretrained, digest_of
from langevin.store import read_tensors, refuse_others

SIDE = 299
CLASSES = 1008
EPSILON = 1e-3


@dataclass(frozen=True)
class _Conv:
    """A convolution without bias, its normalisation and a rectifier."""

    name: str
    out: int
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]


Node: TypeAlias = "_Conv | Callable[[Tensor], Tensor] | list[Node] | tuple[Node, ...]"
"""What maps (n, C, H, W) to (n, C', H', W'): a list is done one after the other, a tuple side by side and joined."""

_mean = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_most = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_half = partial(F.max_pool2d, kernel_size=3, stride=2)


def _conv(name: str, out: int, kernel: int | tuple[int, int] = 1, stride: int = 1, padded: bool = True) -> _Conv:
    high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return _Conv(name, out, (high, wide), stride, (high // 2, wide // 2) if padded else (0, 0))


def _block(block: str) -> Callable[..., _Conv]:
    return lambda name, *rest: _conv(f"{block}.{name}", *rest)


def _a(block: str, pool: int) -> Node:
    c = _block(block)
    return (
        c("branch1x1", 64),
        [c("branch5x5_1", 48), c("branch5x5_2", 64, 5)],
        [c("branch3x3dbl_1", 64), c("branch3x3dbl_2", 96, 3), c("branch3x3dbl_3", 96, 3)],
        [_mean, c("branch_pool", pool)],
    )


def _b(block: str) -> Node:
    c = _block(block)
    return (
        c("branch3x3", 384, 3, 2, False),
        [c("branch3x3dbl_1", 64), c("branch3x3dbl_2", 96, 3), c("branch3x3dbl_3", 96, 3, 2, False)],
        _half,
    )


def _c(block: str, mid: int) -> Node:
    c = _block(block)
    double = [c(f"branch7x7dbl_{k}", mid, (7, 1) if k % 2 == 0 else (1, 7)) for k in (2, 3, 4)]
    return (
        c("branch1x1", 192),
        [c("branch7x7_1", mid), c("branch7x7_2", mid, (1, 7)), c("branch7x7_3", 192, (7, 1))],
        [c("branch7x7dbl_1", mid), *double, c("branch7x7dbl_5", 192, (1, 7))],
        [_mean, c("branch_pool", 192)],
    )


def _d(block: str) -> Node:
    c = _block(block)
    return (
        [c("branch3x3_1", 192), c("branch3x3_2", 320, 3, 2, False)],
        [
            c("branch7x7x3_1", 192),
            c("branch7x7x3_2", 192, (1, 7)),
            c("branch7x7x3_3", 192, (7, 1)),
            c("branch7x7x3_4", 192, 3, 2, False),
        ],
        _half,
    )


def _e(block: str, pool: Callable[[Tensor], Tensor]) -> Node:
    c = _block(block)

    def cross(name: str) -> Node:
        return c(f"{name}a", 384, (1, 3)), c(f"{name}b", 384, (3, 1))

    return (
        c("branch1x1", 320),
        [c("branch3x3_1", 384), cross("branch3x3_2")],
        [c("branch3x3dbl_1", 448), c("branch3x3dbl_2", 384, 3), cross("branch3x3dbl_3")],
        [pool, c("branch_pool", 192)],
    )


GRAPH: Node = [
    _conv("Conv2d_1a_3x3", 32, 3, 2, False),
    _conv("Conv2d_2a_3x3", 32, 3, 1, False),
    _conv("Conv2d_2b_3x3", 64, 3),
    _half,
    _conv("Conv2d_3b_1x1", 80),
    _conv("Conv2d_4a_3x3", 192, 3, 1, False),
    _half,
    *(_a(f"Mixed_5{k}", pool) for k, pool in zip("bcd", (32, 64, 64), strict=True)),
    _b("Mixed_6a"),
    *(_c(f"Mixed_6{k}", mid) for k, mid in zip("bcde", (128, 160, 160, 192), strict=True)),
    _d("Mixed_7a"),
    _e("Mixed_7b", _mean),
    _e("Mixed_7c", _most),
    partial(torch.mean, dim=(2, 3)),
]


def _kernels(node: Node, channels: int, found: dict[str, tuple[int, ...]]) -> int:
    """Puts the shape of every kernel into `found` by its name; gives the channels that come out."""
    if isinstance(node, _Conv):
        found[node.name] = (node.out, channels, *node.kernel)
        return node.out
    if isinstance(node, list):
        for part in node:
            channels = _kernels(part, channels, found)
        return channels
    return sum(_kernels(part, channels, found) for part in node) if isinstance(node, tuple) else channels


def shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the weights must hold, all float32."""
    kernels: dict[str, tuple[int, ...]] = {}
    dim = _kernels(GRAPH, 3, kernels)
    found: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, dim), "fc.bias": (CLASSES,)}
    for name, shape in kernels.items():
        found[f"{name}.conv.weight"] = shape
        found |= {f"{name}.bn.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
    return found


def fold(state: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Kernel and bias that do what convolution and normalisation do: gain * (k * x - mean) / sqrt(var + eps) + bias."""
    gain, bias, mean, var = (
        state[f"{name}.bn.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gain / (var + EPSILON).sqrt()
    return (state[f"{name}.conv.weight"] * gain[:, None, None, None]).float(), (bias - gain * mean).float()


def _run(node: Node, x: Tensor, weights: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    if isinstance(node, _Conv):
        return F.relu_(F.conv2d(x, *weights[node.name], stride=node.stride, padding=node.padding))
    if isinstance(node, list):
        for part in node:
            x = _run(part, x, weights)
        return x
    return torch.cat([_run(part, x, weights) for part in node], 1) if isinstance(node, tuple) else node(x)


def resize_legacy(pictures: Pictures) -> Tensor:
    """(n, H, W, 3) -> (n, 3, 299, 299) float32 in 0..255: TensorFlow 1's bilinear, corner on corner, no smoothing."""
    x = torch.from_numpy(pictures.astype(np.float32)).permute(0, 3, 1, 2)
    for axis in (3, 2):
        size = x.shape[axis]
        at = torch.arange(SIDE, dtype=torch.float32) * (size / SIDE)
        low = at.long()
        high = (low + 1).clamp_max(size - 1)
        share = (at - low).reshape(-1, 1) if axis == 2 else at - low
        left, right = x.index_select(axis, low), x.index_select(axis, high)
        x = left + (right - left) * share
    return x


def resize_clean(pictures: Pictures) -> Tensor:
    """(n, H, W, 3) -> (n, 3, 299, 299) float32 in 0..255: Pillow's bicubic on floats, clipped and not rounded."""
    planes = np.moveaxis(pictures, -1, 1).astype(np.float32).reshape(-1, *pictures.shape[1:3])
    small = [np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for p in planes]
    return torch.from_numpy(np.clip(np.stack(small), 0, 255)).reshape(-1, 3, SIDE, SIDE)


class Inception(Pretrained):
    """Inception-v3 of FID from a .safetensors file; `resize` is "legacy" or "clean"."""

    name = "inception"

    def __init__(self, weights: Path | str, resize: str = "legacy", device: str = "cpu") -> None:
        modes = {"legacy": ("fid", resize_legacy), "clean": ("clean-fid", resize_clean)}
        if resize not in modes:
            raise UsageError(f"there is no resize `{resize}`", help="legacy gives FID, clean gives clean-FID")
        path = Path(weights)
        _refuse_others(path)
        state = {k: v for k, v in read_tensors(path).items() if not k.endswith(".num_batches_tracked")}
        found = {k: (tuple(v.shape), v.dtype) for k, v in state.items()}
        wanted = {k: (shape, torch.float32) for k, shape in shapes().items()}
        refuse_others(found, wanted, "these are not the weights of FID's Inception-v3", where=str(path))
        names = [k.removesuffix(".conv.weight") for k in state if k.endswith(".conv.weight")]
        folded = {name: fold(state, name) for name in names}
        self._weights = {name: (kernel.to(device), bias.to(device)) for name, (kernel, bias) in folded.items()}
        self._head: Array = state["fc.weight"].double().numpy()
        self._device = device
        self.dim = self._head.shape[1]
        self.frechet_name, self._resize = modes[resize]
        definition = (
            f"inception: graph of 2015-12-05, {resize} resize to {SIDE} unrounded, (x - 128) / 128, last pooling, 1"
        )
        self.digest = digest_of(definition, [path])

    def embed(self, pictures: Pictures) -> Tensor:
        """uint8 RGB (n, H, W, 3) -> (n, 2048) float32."""
        return _run(GRAPH, (self._resize(pictures).to(self._device) - 128) / 128, self._weights)

    def probabilities(self, features: Array) -> Array:
        """Features (N, 2048) -> probabilities of the classes (N, 1008): softmax without biases, as Salimans et al. had it."""
        logits = features @ self._head.T
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(weights / weights.sum(1, keepdims=True))


def inception_score(probabilities: Array, splits: int = 10) -> tuple[float, float]:
    """exp of the mean information that a picture gives about its class: mean and deviation over `splits` equal parts.

    Salimans et al. 2016 (arXiv:1606.03498). Parts are taken in the order given: shuffle what is sorted by class.
    1 at least; the number of classes at most. Raises DataError with fewer pictures than parts.
    """
    if not 1 <= splits <= len(probabilities):
        raise DataError(f"{len(probabilities)} pictures cannot be cut into {splits} parts")
    scores = []
    for part in np.array_split(probabilities, splits):
        ratio = np.divide(part, part.mean(0), out=np.ones_like(part), where=part > 0)  # 0 log 0 is 0
        scores.append(np.exp((part * np.log(ratio)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def _refuse_others(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise RefusedError(
            f"`{path.name}` is not a safetensors file; it was not opened",
            where=str(path),
            help="convert it once, where it is trusted:\n"
            "    import torch; from safetensors.torch import save_file\n"
            f'    state = torch.load("{path.name}", map_location="cpu", weights_only=True)\n'
            f'    save_file({{k: v.contiguous() for k, v in state.items()}}, "{path.stem}.safetensors")',
        )
    if not path.is_file():
        raise UsageError("there is no such file of weights", where=str(path))

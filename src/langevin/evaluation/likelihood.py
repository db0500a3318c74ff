"""Bits per dimension of real items under a trained model, and how they were counted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.data.codec.pixels import Pixels
from langevin.diffusion.likelihood import Estimate, Levels, estimate_bound, estimate_log_prob
from langevin.errors import DataError, UsageError
from langevin.model import Model
from langevin.rng import generator, keyed

METHODS = ("bound", "flow")
_DEQUANTISE = 1 << 62  # the stream of the uniform numbers


@dataclass(frozen=True)
class BitsPerDim:
    """Fewer bits are likelier.

    Attributes:
        value: mean over the items, bits per dimension; an upper bound of -log2 P with method "bound", and in the mean over draws
            with "flow".
        error: its standard error, over items and draws together.
        step_error: mean error of the integrator; 0 for the bound.
        items: (N,) bits per dimension of each.
        nats: (N,) nats of each, all dimensions together.
        how: what was counted, in words; figures counted in different ways do not compare.
    """

    value: float
    error: float
    step_error: float
    items: NDArray[np.float64]
    nats: NDArray[np.float64]
    how: str


def levels_of(codec: Pixels) -> Levels | None:
    """The levels that a codec's integers have in model space; None for floats."""
    return None if codec.dtype == "float32" else Levels(-1.0, 2 / codec.high, int(codec.high) + 1)


def bits_per_dim(
    model: Model,
    items: NDArray[np.generic],
    label: "int | str | Sequence[int | str] | None" = None,
    *,
    method: str = "bound",
    draws: int = 16,
    steps: int = 32,
    seed: int = 0,
    batch: int = 64,
) -> BitsPerDim:
    """How many bits a dimension of items (N, ...), in the data's own form, takes under the model.

    Integers: "bound" is the evidence bound with a decoder over the levels, "flow" the probability flow of uniformly dequantised
    items (one draw each, also a bound). Floats: minus the log density of the data as they are, in bits; it depends on their unit.

    Args:
        label: classes, as for `Model.sample`, but unconditional where there is none.
        method: "bound" or "flow".
        draws: of the bound, or probes of Hutchinson's estimate of the trace; none is the exact trace, which takes as many
            backward passes as there are dimensions.
        steps: of the flow's integrator, even.

    Raises:
        UsageError: no such method or label. DataError: items that are not of the model's kind.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method `{method}`", help=f"use {' or '.join(METHODS)}")
    if draws < (method == "bound"):
        raise UsageError("the bound takes one draw at least, not none")
    codec = model.codec
    if not isinstance(codec, Pixels):
        raise UsageError(f"bits per dimension are counted of pixels, not through a {type(codec).__name__}")
    levels = levels_of(codec)
    items = np.asarray(items)
    if items.ndim == len(model.shape) and codec.squeeze:
        items = items[..., None]
    if items.dtype.name != codec.dtype or items.shape[1:] != (*model.shape[1:], model.shape[0]) or not len(items):
        raise DataError(f"items are {items.dtype.name} {items.shape[1:]}, not the model's {codec.dtype}")
    labels = None if label is None else model.labels(range(len(items)), label)
    device, size = next(model.denoiser.parameters()).device, math.prod(model.shape)
    found: list[Estimate] = []
    for rows in np.array_split(np.arange(len(items)), math.ceil(len(items) / batch)):
        z = codec.encode(torch.from_numpy(np.array(items[rows]))).to(device)
        cond = None if labels is None else {"label": torch.from_numpy(labels[rows]).to(device)}
        noise = keyed([seed + int(i) for i in rows])
        if method == "bound":
            found.append(estimate_bound(model.denoiser, z, noise, draws=draws, levels=levels, cond=cond))
        else:
            z = z if levels is None else z + levels.spacing * _uniform(z, [seed + int(i) for i in rows])
            flow = estimate_log_prob(model.denoiser, z, num_steps=steps, probes=draws, noise=noise, cond=cond)
            found.append(flow._replace(value=-flow.value))
    value, step = (
        torch.cat(a).double().cpu().numpy() for a in ([e.value for e in found], [e.step_error for e in found])
    )
    # from densities in model space to probabilities of levels, or to densities in the data's unit
    unit = math.log(levels.spacing) if levels is not None else math.log(2 / (codec.high - codec.low))
    nats = value - (size * unit if method == "flow" or levels is None else 0)
    bits = nats / size / math.log(2)
    error = float(bits.std(ddof=1) / math.sqrt(len(bits))) if len(bits) > 1 else math.nan
    return BitsPerDim(
        float(bits.mean()), error, float(step.mean()) / size / math.log(2), bits, nats, _how(method, levels, draws)
    )


def _uniform(z: Tensor, seeds: Sequence[int]) -> Tensor:
    """Numbers in (-1/2, 1/2) shaped like z (B, ...), a stream a seed."""
    rows = [generator(s, _DEQUANTISE).random(z[0].numel()) - 0.5 for s in seeds]
    return torch.from_numpy(np.stack(rows)).to(z).reshape(z.shape)


def _how(method: str, levels: Levels | None, draws: int) -> str:
    if method == "bound":
        what, among = f"evidence bound, {draws} draws an item", "decoder over {:,} levels"
    else:
        trace = f"trace from {draws} probes an item" if draws else "exact trace"
        what, among = f"probability flow, {trace}", "uniform dequantisation of {:,} levels"
    return f"{what}, {among.format(levels.num) if levels else 'density of float data'}"

"""What to change where memory is too short, with the memory that a step would need, found without taking any.

    bytes = 4 (2 + s + a) P + m A

P parameters with their gradients, s numbers a parameter that the optimizer keeps, a averages; m samples at once, and A bytes
that a sample leaves for the backward pass, counted by running the network on tensors that have shapes and no storage. What
passes by in between comes on top: the figures are what a step cannot do without.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from langevin import registry
from langevin.config import TrainConfig
from langevin.model import Model
from langevin.networks.base import Network
from langevin.training import TrainState


def table(config: TrainConfig, model: Model, state: TrainState) -> str:
    """Lines of text: each change with the memory of a step."""
    size = state.guard.micro_batch or config.micro_batch or config.batch or 1
    spec, shape = registry.describe(model.denoiser.network), model.shape
    kept = sum(v.numel() for k, v in state.tensors().items() if k.startswith("optimizer."))
    count = sum(p.numel() for p in state.network.parameters())
    each = 2 + len(config.ema) + (kept / count if kept else 2.0)
    classes = len(model.classes)

    def line(name: str, spec: Mapping[str, Any], shape: tuple[int, ...], size: int, precision: str) -> str:
        found = predicted(spec, shape, size, precision, each, classes)
        return f"  {name:<42} " + ("not known" if found is None else f"{found / 1e6:>10,.0f} MB")

    now = config.precision
    lines = ["memory of a step, at least:", line(f"as it is: {size} samples at once", spec, shape, size, now)]
    lines += [
        line(f"micro_batch={smaller} (same result)", spec, shape, smaller, now)
        for smaller in sorted({max(1, size // 2), max(1, size // 4), 1} - {size}, reverse=True)
    ]
    half = tuple(max(1, n // 2) for n in shape[1:])
    if half and max(shape[1:]) > 1:
        lines.append(line(f"data.size={max(half)}", spec, (shape[0], *half), size, now))
    if isinstance(widths := spec.get("widths"), list | tuple):
        narrow = [max(8, w // 2) for w in widths]
        lines.append(line(f"network.widths={narrow}".replace(" ", ""), {**spec, "widths": narrow}, shape, size, now))
    if now == "float32":
        lines.append(line("precision=bfloat16", spec, shape, size, "bfloat16"))
    if (free := available(model)) is not None:
        lines.append(f"  {'free now':<42} {free / 1e6:>10,.0f} MB")
    return "\n".join(lines)


def predicted(
    spec: Mapping[str, Any], shape: tuple[int, ...], size: int, precision: str, each: float, classes: int = 0
) -> float | None:
    """Bytes of a step with `size` samples of `shape` at once; None where the network cannot be run without storage.

    Args:
        each: numbers kept for each parameter, itself and its gradient included.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode():
            network = registry.build(dict(spec), Network, foreign=True)  # type: ignore[type-abstract]
            parameters = sum(p.numel() for p in network.parameters())
            one, two = (_left(network, n, shape, precision, classes) for n in (1, 2))
    except Exception:  # whatever a foreign network does with its input
        return None
    return 4 * each * parameters + one + (size - 1) * (two - one)


def _left(network: nn.Module, count: int, shape: tuple[int, ...], precision: str, classes: int) -> int:
    """Bytes that `count` samples leave for the backward pass."""
    storages: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    cond = {"label": torch.zeros(count, dtype=torch.int64)} if classes else {}
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", half, enabled=half is not None),
    ):
        out = network(torch.zeros(count, *shape), torch.zeros(count), cond)
        own = {p.untyped_storage()._cdata for p in network.parameters()}
        taken: int = sum(s.nbytes() for k, s in storages.items() if k not in own)
    del out
    return taken


def available(model: Model) -> int | None:
    """Bytes that are free where the model is; None where nobody says."""
    device = next(model.denoiser.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None

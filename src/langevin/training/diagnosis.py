"""Where numbers stopped being finite: which samples, at which noise levels, in which layer, on which of many processes.

Asked only when it happened, by all processes; each looks at its own part of the batch.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from langevin.config import TrainConfig
from langevin.diffusion.weights import Weight
from langevin.training.distributed import ALONE, World, here, host
from langevin.training.feed import Batch
from langevin.training.gradient import HALVES, Loss, gradient
from langevin.training.guard import names
from langevin.training.state import TrainState


def diagnose(
    denoiser: Any,
    batch: Batch,
    config: TrainConfig,
    state: TrainState,
    weight: Weight,
    compute: Loss,
    items: Sequence[str],
    world: World = ALONE,
) -> tuple[str, dict[str, Any]]:
    """Run a batch again that was not finite: (what was found in words, {"sigma", "layer", "parameter", "items"}).

    Expects the gradients as they were found, and leaves none. `sigma` is sigma / alpha of each sample that went wrong, `layer`
    the first whose output is not finite, `parameter` the first that is not finite itself, or else whose gradient is not. Of
    many processes `ranks` are those in whose samples or layers it was found. Shards (fsdp) are found out about by all
    together, and samples whose gradient alone is not finite are then not looked for.

    Args:
        batch: this process's part.
        items: names of the data's items.
        world: all processes, which come to the same answer.
    """
    with torch.compiler.set_stance("force_eager"):  # what compiled code computes inside cannot be watched
        every = world.each(_found(denoiser, batch, config, state, weight, compute, items, world))
    ranks = [rank for rank, one in enumerate(every) if one["items"] or one["layer"] or one["unsound"]]
    blamed = [every[rank] for rank in ranks] or every
    facts: dict[str, Any] = {
        "sigma": [sigma for one in blamed for sigma in one["sigma"]],
        "layer": next((one["layer"] for one in blamed if one["layer"]), None),
        "parameter": next((one["parameter"] for one in blamed if one["parameter"]), None),
        "items": [item for one in blamed for item in one["items"]],
    }
    unsound, broken = (any(one[k] for one in blamed) for k in ("unsound", "broken"))
    words = _words(facts, sum(one["count"] for one in every), unsound, broken)
    if world.size == 1:
        return words, facts
    where = names([f"rank {rank} on {every[rank]['host']}" for rank in ranks])
    return f"{where}: {words}" if ranks else words, facts | {"ranks": ranks}


def _found(
    denoiser: Any,
    batch: Batch,
    config: TrainConfig,
    state: TrainState,
    weight: Weight,
    compute: Loss,
    items: Sequence[str],
    world: World,
) -> dict[str, Any]:
    """What there is to see in this process's part, for JSON."""
    network = state.network
    broken = _first_broken(dict(network.named_parameters()))
    no_slope = _first_broken({k: p.grad for k, p in network.named_parameters() if p.grad is not None})
    t, importance = state.law(batch.u, denoiser.process.schedule)
    layers: list[str] = []
    each = []
    with torch.no_grad(), _watched(network, layers):
        for part in torch.split(torch.arange(len(batch)), config.micro_batch or max(1, len(batch))):
            some = _some(batch, part)
            half = HALVES.get(config.precision)
            with torch.autocast(batch.x0.device.type, half, enabled=half is not None):
                at = t[part.to(t.device)]
                each.append(compute(denoiser, some.x0, at, some.noise(), weight, cond=some.cond))
    found = torch.cat(each).cpu() if each else torch.zeros(0)
    bad = (~(found * importance.cpu().to(found)).isfinite()).nonzero().flatten().tolist()
    if not bad and not config.private and world.parallel != "fsdp":
        with world.travelling(denoiser, last=False):
            bad = list(_without_slope(denoiser, batch, config, state, weight, compute))
    state.optimizer.zero_grad(set_to_none=True)
    own = (~batch.x0.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
    schedule = denoiser.process.schedule
    ratio = (schedule.sigma(t) / schedule.alpha(t)).tolist()
    return {
        "sigma": [float(f"{ratio[i]:.4g}") for i in bad],
        "layer": layers[0] if layers else None,
        "parameter": broken or (None if layers else no_slope),
        "items": [str(items[int(batch.rows[i])]) for i in bad],
        "count": len(batch),
        "unsound": bool(own),
        "broken": broken is not None,
        "host": host(),
    }


def _words(facts: dict[str, Any], count: int, unsound: bool, broken: bool) -> str:
    said = []
    if unsound:
        said.append("the items themselves are not finite")
    elif facts["layer"]:
        said.append(f"first in the output of layer `{facts['layer']}`")
    if facts["parameter"]:
        said.append(f"{'weights' if broken else 'gradient'} of `{facts['parameter']}` not finite")
    if facts["items"]:
        levels = names([f"{s:g}" for s in facts["sigma"]])
        said.append(f"{len(facts['items'])} of {count} samples, at sigma/alpha {levels}, items {names(facts['items'])}")
    return "; ".join(said) or "the same batch gives finite numbers when it is run again"


def _some(batch: Batch, part: Tensor) -> Batch:
    """The samples at some places of a batch."""
    rows, at = part.tolist(), part.to(batch.x0.device)
    return dataclasses.replace(
        batch,
        rows=batch.rows[rows],
        x0=batch.x0[at],
        cond={name: value[at] for name, value in batch.cond.items()},
        u=batch.u[part.to(batch.u.device)],
        keys=[batch.keys[i] for i in rows],
        made=None if batch.made is None else batch.made[part],
    )


def _without_slope(
    denoiser: Any, batch: Batch, config: TrainConfig, state: TrainState, weight: Weight, compute: Loss
) -> Iterator[int]:
    """Samples whose own gradient is not finite."""
    for i in range(len(batch)):
        state.optimizer.zero_grad(set_to_none=True)
        gradient(denoiser, _some(batch, torch.tensor([i])), config, state, weight, compute)
        if _first_broken({k: p.grad for k, p in state.network.named_parameters() if p.grad is not None}) is not None:
            yield i


def _first_broken(tensors: dict[str, Tensor]) -> str | None:
    return next((name for name, value in tensors.items() if not bool(here(value).isfinite().all())), None)


@contextmanager
def _watched(network: nn.Module, found: list[str]) -> Iterator[None]:
    """Inside the block, names of layers whose output is not finite are added to `found`, in the order of computation."""

    def look(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.is_floating_point() and not bool(out.isfinite().all()):
                found.append(name)

        return hook

    handles = [m.register_forward_hook(look(name)) for name, m in network.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

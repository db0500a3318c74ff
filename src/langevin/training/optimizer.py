"""How weights follow their gradient, how fast, and what is remembered of it."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from langevin import registry
from langevin.config import OptimizerConfig
from langevin.errors import RefusedError, UsageError, nearest
from langevin.training.distributed import like
from langevin.training.parameters import chosen, refuse_unknown

ROOM = "langevin.training.optimizers"


def method(name: str) -> type[torch.optim.Optimizer]:
    """The optimizer of that name. Raises UsageError."""
    found = registry.find(ROOM, name, torch.optim.Optimizer)
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UsageError(f"`{name}` takes more than one gradient a step", help="take one that steps without a closure")
    return found


def default_lr(name: str) -> float:
    """The learning rate that a method takes where none is given."""
    lr = inspect.signature(method(name)).parameters.get("lr")
    own = lr.default if lr is not None else None
    return own if isinstance(own, float) else float(OptimizerConfig.model_fields["lr"].default)


def make(
    parameters: Mapping[str, Tensor], settings: OptimizerConfig, kinds: Mapping[str, str] | None = None
) -> torch.optim.Optimizer:
    """The optimizer over parameters by name; the learning rate is set before each step, by `set_rate`.

    Parameters that share their rate, their weight decay and (for a method that tells them apart) their kind are one group.
    Weights of layers decay; what is of kind "other" does not.

    Raises:
        UsageError: an unknown method or setting, a value that cannot be, a pattern that matches nothing.
    """
    cls, kinds = method(settings.name), kinds or {}
    known = inspect.signature(cls).parameters
    own = {"lr": settings.lr, **({"betas": settings.betas} if settings.betas else {}), **settings.settings}
    for key in own:
        if key not in known:
            raise UsageError(f"`{settings.name}` has no setting `{key}`", where="optimizer", help=nearest(key, known))
    if settings.weight_decay and "weight_decay" not in known:
        raise UsageError(f"`{settings.name}` has no weight decay", where="optimizer.weight_decay")
    refuse_unknown(settings.rates, parameters, "optimizer.rates")
    groups: dict[tuple[float, float, bool], list[tuple[str, Tensor]]] = {}
    for name, parameter in parameters.items():
        kind = kinds.get(name, "other")
        decay = 0.0 if kind == "other" else settings.weight_decay
        hidden = kind == "hidden" and getattr(cls, "by_kind", False)
        groups.setdefault((chosen(settings.rates, name, 1.0), decay, hidden), []).append((name, parameter))
    rows: list[dict[str, Any]] = []
    for (factor, decay, hidden), some in groups.items():
        decays = {"weight_decay": decay} if "weight_decay" in known else {}
        rows.append({"params": some, "factor": factor, "hidden": hidden, **decays})
    try:
        return cls(rows, **own)
    except (TypeError, ValueError) as error:
        raise UsageError(f"`{settings.name}`: {error}", where="optimizer") from error


def learning_rate(progress: float, settings: OptimizerConfig) -> float:
    """The peak, warmed up linearly, held, and then lowered: to 0 at the end of the budget, or as 1 / sqrt(progress)."""
    warm = min(1.0, progress / settings.warmup) if settings.warmup else 1.0
    p = max(0.0, min(progress, 1.0) - settings.hold) / (1 - settings.hold)
    if settings.decay == "cosine":
        return settings.lr * warm * 0.5 * (1 + math.cos(math.pi * p))
    if settings.decay == "linear":
        return settings.lr * warm * (1 - p)
    if settings.decay == "inverse_sqrt":
        begin = max(settings.warmup, settings.hold, 0.01)
        return settings.lr * warm * min(1.0, math.sqrt(begin / max(progress, 1e-12)))
    return settings.lr * warm


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All that it moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What it remembers of each parameter, by KEY.PARAMETER; nothing before the first step."""
    return {
        f"{key}.{name}": value
        for name, memory in _memory(optimizer).items()
        for key, value in memory.items()
        if isinstance(value, Tensor)
    }


def numbers(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What it remembers beside tensors: of parameters, and of groups.

    Raises:
        UsageError: it remembers something that is neither tensor nor number.
    """
    memory: dict[str, dict[str, Any]] = {}
    for name, known in _memory(optimizer).items():
        plain = {key: value for key, value in known.items() if not isinstance(value, Tensor)}
        for key, value in plain.items():
            if not isinstance(value, int | float | bool | None):
                kind = f"{type(optimizer).__name__} remembers `{key}`, a {type(value).__name__}"
                raise UsageError(f"{kind}, which cannot be saved", help="take another optimizer")
        memory |= {name: plain} if plain else {}
    groups = [{k: v for k, v in g.items() if type(v) in (int, float) and k != "lr"} for g in optimizer.param_groups]
    return {"method": _name(optimizer), "memory": memory, "groups": groups}


def restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Take on what `tensors` and `numbers` gave; `numbers` may be empty.

    Raises:
        RefusedError: it was remembered by another method, or of other parameters.
    """
    own = _name(optimizer)
    if numbers.get("method", own) != own:
        raise RefusedError(f"the checkpoint is of the optimizer `{numbers['method']}`, not `{own}`")
    state = optimizer.state_dict()
    index = {name: i for g in state["param_groups"] for name, i in zip(g["param_names"], g["params"], strict=True)}
    memory: dict[str, dict[str, Any]] = {k: dict(v) for k, v in numbers.get("memory", {}).items()}
    moved = {name: p for g in optimizer.param_groups for name, p in zip(g["param_names"], g["params"], strict=True)}
    for name, value in tensors.items():
        key, _, parameter = name.partition(".")
        own_shape = parameter in moved and value.shape == moved[parameter].shape
        memory.setdefault(parameter, {})[key] = like(moved[parameter], value) if own_shape else value.clone()
    if other := memory.keys() - index.keys():
        raise RefusedError(f"the checkpoint has an optimizer's memory of {min(other)}, which is not trained here")
    groups = state["param_groups"]
    if len(kept := numbers.get("groups", groups)) != len(groups):
        raise RefusedError(f"the checkpoint's optimizer has {len(kept)} groups of parameters, not {len(groups)}")
    groups = [group | former for group, former in zip(groups, kept, strict=True)]
    optimizer.load_state_dict({"state": {index[k]: v for k, v in memory.items()}, "param_groups": groups})


def _name(optimizer: torch.optim.Optimizer) -> str:
    cls = type(optimizer)
    return (
        cls.__module__.removeprefix(f"{ROOM}.")
        if cls.__module__.startswith(ROOM)
        else f"{cls.__module__}:{cls.__qualname__}"
    )


def _memory(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Its state, by the names of parameters."""
    named = ((n, p) for g in optimizer.param_groups for n, p in zip(g["param_names"], g["params"], strict=True))
    return {name: dict(optimizer.state[p]) for name, p in named if p in optimizer.state}

"""What a saved state must hold to be that of a run: every tensor by name, shape and type, and every number.

All of it is compared before anything of the run is changed. What an optimizer remembers of a parameter is found by asking its
method: a small parameter of as many dimensions makes one step, and leaves what such a parameter leaves.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from langevin import store
from langevin.diffusion.times import LossAware
from langevin.errors import RefusedError
from langevin.training import optimizer
from langevin.training.state import TrainState

Kind = tuple[tuple[int, ...], torch.dtype]
_NUMBERS: dict[str, type] = {"step": int, "skipped": int, "rate": float, "clock.elapsed": float, "clock.began": float}


def unmoved(state: TrainState) -> list[str]:
    """Trained parameters of which the optimizer remembers nothing: all before the first step, later those without a gradient."""
    return [name for name, p, _ in _trained(state) if p not in state.optimizer.state]


def refuse_others(
    state: TrainState, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], still: list[str] | None, *, where: str
) -> None:
    """Raise RefusedError, with the first ten differences and how many more, where the run cannot take these on.

    Args:
        state: of a run that was made from the same config; it is not changed.
        tensors, numbers: what a checkpoint holds.
        still: what `unmoved` gave when it was made; None where it was not asked, and what is not there is not missed.
    """
    _refuse_numbers(numbers, where)
    _refuse_other_method(state, numbers.get("optimizer") or {}, where)
    found: dict[str, Kind] = {k: (tuple(v.shape), v.dtype) for k, v in tensors.items()}
    wanted = {f"ema.{s}.{k}": v for s, average in state.averages.items() for k, v in average.items()}
    if state.uncertainty is not None:
        wanted |= {f"uncertainty.{k}": v for k, v in state.uncertainty.state_dict().items()}
    if isinstance(state.law, LossAware):
        wanted |= {"law.moments": state.law.moments, "law.counts": state.law.counts}
    kinds: dict[str, Kind] = {k: (tuple(v.shape), v.dtype) for k, v in wanted.items()}
    if still is None:
        moved = {k.split(".", 2)[2] for k in found if k.startswith("optimizer.")}
        still = [name for name, *_ in _trained(state) if name not in moved]
    kinds |= _remembered(state, found, set(still))
    store.refuse_others(found, kinds, "the checkpoint's state does not fit the run", where=where)


def _trained(state: TrainState) -> list[tuple[str, Tensor, dict[str, Any]]]:
    """(name, parameter, group) of all that the optimizer moves."""
    groups = state.optimizer.param_groups
    return [(n, p, group) for group in groups for n, p in zip(group["param_names"], group["params"], strict=True)]


def _remembered(state: TrainState, found: Mapping[str, Kind], still: set[str]) -> dict[str, Kind]:
    """What the optimizer's memory must be, given what it is: where its method does not say, what is there will do."""
    out: dict[str, Kind] = {}
    asked: dict[tuple[int, int, torch.dtype], dict[str, Tensor] | None] = {}
    for name, parameter, group in _trained(state):
        if name in still:
            continue
        key = (id(group), parameter.dim(), parameter.dtype)
        if key not in asked:
            asked[key] = _left_by_a_step(state.optimizer, group, *key[1:])
        if (left := asked[key]) is None:
            out |= {k: v for k, v in found.items() if k.startswith("optimizer.") and k.endswith(f".{name}")}
            continue
        for what, value in left.items():
            entry = f"optimizer.{what}.{name}"
            if value.shape == _sizes(parameter.dim()):
                out[entry] = tuple(parameter.shape), value.dtype
            else:
                out[entry] = (() if not value.dim() else found.get(entry, ((), None))[0]), value.dtype
    return out


def _sizes(dim: int) -> torch.Size:
    return torch.Size(range(2, 2 + dim))


def _left_by_a_step(
    moves: torch.optim.Optimizer, group: Mapping[str, Any], dim: int, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """The tensors that a step leaves in memory for one parameter; None for a method that will not say."""
    cls, parameter = type(moves), torch.zeros(_sizes(dim), dtype=dtype, requires_grad=True)
    parameter.grad = torch.zeros_like(parameter)
    row = {k: v for k, v in group.items() if k not in ("params", "param_names")} | {"params": [("", parameter)]}
    known = inspect.signature(cls).parameters
    try:
        twin = cls([row], **{k: v for k, v in moves.defaults.items() if k in known})
        twin.step()
    except Exception:  # whatever a foreign method does with a parameter that is no network's
        return None
    return {k: v for k, v in twin.state[parameter].items() if isinstance(v, Tensor)}


def _refuse_other_method(state: TrainState, numbers: Mapping[str, Any], where: str) -> None:
    own = optimizer.numbers(state.optimizer)
    if (method := numbers.get("method", own["method"])) != own["method"]:
        raise RefusedError(f"the checkpoint is of the optimizer `{method}`, not `{own['method']}`", where=where)
    count, groups = len(numbers.get("groups", own["groups"])), len(own["groups"])
    if count != groups:
        raise RefusedError(f"the checkpoint's optimizer has {count} groups of parameters, not {groups}", where=where)


def _refuse_numbers(numbers: Mapping[str, Any], where: str) -> None:
    wrong = []
    for name, kind in _NUMBERS.items():
        value: Any = numbers
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        sound = isinstance(value, int) if kind is int else isinstance(value, int | float) and math.isfinite(value)
        if not sound or isinstance(value, bool) or value < 0:
            wrong.append(f"{name} is {value!r}")
    if wrong:
        raise RefusedError(f"the checkpoint's state is none: {'; '.join(wrong)}", where=where)

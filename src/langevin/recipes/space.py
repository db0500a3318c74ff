"""What a search may change, and between which values.

    optimizer.lr: {low: 4.0e-4, high: 8.0e-3, log: true}     a number; whole where both ends are
    batch: [16, 32, 64]                                      one of these
    network.widths: {scale: [0.5, 1, 1.5]}                   one of these factors on the recipe's own value

A recipe's own value is always part of the space: a range reaches it, a choice holds it.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from langevin.config import TrainConfig, parse, read_yaml
from langevin.errors import UsageError, nearest

Value = float | int | str
FIXED = ("data", "seed", "minutes", "steps", "ema", "track", "sampling")
"""What a search does not change: trials would no longer be comparable, or it is chosen after training."""
SCALES = (0.5, 0.75, 1.0, 1.5)
"""Factors on the widths of the network, where nothing else is said."""


@dataclass(frozen=True)
class Range:
    """Any number from low to high; even in its logarithm with `log`."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is for whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def with_own(self, own: Any) -> "Range":
        return Range(min(self.low, own), max(self.high, own), self.log)

    def origin(self, own: Any) -> Value:
        return own  # type: ignore[no-any-return]

    def apply(self, own: Any, value: Value) -> Any:
        return value

    def describe(self) -> Any:
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Choice:
    """One of some values, each written as JSON."""

    values: tuple[str, ...]

    def with_own(self, own: Any) -> "Choice":
        written = json.dumps(own, sort_keys=True)
        return self if written in self.values else Choice((written, *self.values))

    def origin(self, own: Any) -> Value:
        return json.dumps(own, sort_keys=True)

    def apply(self, own: Any, value: Value) -> Any:
        return json.loads(str(value))

    def describe(self) -> Any:
        return [json.loads(v) for v in self.values]


@dataclass(frozen=True)
class Scale:
    """One of some factors on the recipe's own number or numbers; whole ones stay whole, multiples of 8 above 16."""

    values: tuple[float, ...]

    def with_own(self, own: Any) -> "Scale":
        return self if 1.0 in self.values else Scale((1.0, *self.values))

    def origin(self, own: Any) -> Value:
        return 1.0

    def apply(self, own: Any, value: Value) -> Any:
        if value == 1.0:
            return own
        if isinstance(own, list | tuple):
            return [self.apply(inner, value) for inner in own]
        scaled = own * float(value)
        if not isinstance(own, int):
            return scaled
        return max(8, 8 * round(scaled / 8)) if scaled >= 16 else max(1, round(scaled))

    def describe(self) -> Any:
        return {"scale": list(self.values)}


Kind = Range | Choice | Scale


@dataclass(frozen=True)
class Space:
    """What may change around a recipe.

    Attributes:
        base: the default recipe, resolved.
        kinds: dotted setting -> how it may vary.
    """

    base: TrainConfig
    kinds: Mapping[str, Kind]

    @staticmethod
    def of(base: TrainConfig, given: Mapping[str, Any], where: str = "") -> "Space":
        """The space that a mapping describes. Raises UsageError naming the setting that is wrong."""
        if not given:
            raise UsageError("the space is empty", where=where, help="such as `batch: [16, 32, 64]`")
        kinds: dict[str, Kind] = {}
        for name, said in given.items():
            if str(name).split(".")[0] in FIXED:
                raise UsageError(f"`{name}` is the same in all trials", where=where, help="leave it out of the space")
            own = _own(base, str(name), where)
            kind = _kind(str(name), said, where)
            try:
                kinds[str(name)] = kind.with_own(own)
                for value in kind.values if isinstance(kind, Choice | Scale) else ():
                    kind.apply(own, value)
            except TypeError:
                raise UsageError(
                    f"`{name}` is {own!r} in the recipe, which is no number to vary like that", where=where
                ) from None
        return Space(base, kinds)

    @staticmethod
    def read(base: TrainConfig, path: Path) -> "Space":
        """The space in a YAML file."""
        return Space.of(base, read_yaml(path), str(path))

    @staticmethod
    def default(base: TrainConfig, sound: Callable[[TrainConfig], bool], *, labelled: bool) -> "Space":
        """Few settings, those that matter most: learning rate, batch, widths, time law and dropout of conditions.

        Args:
            sound: whether a recipe can be made; factors on the widths for which it cannot are left out.
            labelled: whether there are conditions to drop.
        """
        lr, batch, law = base.optimizer.lr, base.batch or 1, base.times
        given: dict[str, Any] = {"optimizer.lr": {"low": lr / 5, "high": 4 * lr, "log": True}}
        given["batch"] = sorted({max(1, batch // 2), batch, 2 * batch})
        if "widths" in (base.network or {}):
            scales = [s for s in SCALES if sound(Space.of(base, {WIDTHS: {"scale": [s]}}).recipe({WIDTHS: s}))]
            given[WIDTHS] = {"scale": scales}
        if law.get("name") == "log_normal" and {"mean", "std"} <= law.keys():
            given["times.mean"] = {"low": law["mean"] - 1.0, "high": law["mean"] + 1.0}
            given["times.std"] = {"low": 0.8, "high": 1.8}
        if labelled and base.dropout:
            given["dropout"] = {"low": 0.0, "high": 0.3}
        return Space.of(base, given)

    def origin(self) -> dict[str, Value]:
        """The values at which a trial is the default recipe."""
        return {name: kind.origin(_own(self.base, name)) for name, kind in self.kinds.items()}

    def recipe(self, values: Mapping[str, Value]) -> TrainConfig:
        """The recipe of a trial. Raises UsageError for values that no recipe can have."""
        out = self.base.model_dump()
        for name, value in values.items():
            *parents, last = name.split(".")
            inner = out
            for parent in parents:
                inner = inner[parent]
            inner[last] = self.kinds[name].apply(inner[last], value)
        return parse(out, where="the space")

    def said(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The settings of a trial as they stand in its recipe, by name."""
        return {name: _own(self.recipe(values), name) for name in values}

    def describe(self) -> dict[str, Any]:
        """What `of` makes this space of again."""
        return {name: kind.describe() for name, kind in self.kinds.items()}


WIDTHS = "network.widths"


def _own(base: TrainConfig, name: str, where: str = "") -> Any:
    """The recipe's own value of a dotted setting."""
    inner: Any = base.model_dump()
    for part in name.split("."):
        if not isinstance(inner, dict) or part not in inner:
            known = [str(k) for k in inner] if isinstance(inner, dict) else []
            raise UsageError(f"the recipe has no setting `{name}`", where=where, help=nearest(part, known))
        inner = inner[part]
    return inner


def _kind(name: str, said: Any, where: str) -> Kind:
    def wrong(why: str) -> UsageError:
        return UsageError(
            f"`{name}`: {why}", where=where, help="write {low: 1, high: 2, log: true}, [a, b] or {scale: [0.5, 1, 2]}"
        )

    if isinstance(said, list) and said:
        return Choice(tuple(dict.fromkeys(json.dumps(v, sort_keys=True) for v in said)))
    if not isinstance(said, dict):
        raise wrong(f"{said!r} is no space")
    if said.keys() == {"scale"}:
        factors = said["scale"]
        if not isinstance(factors, list) or not factors or not all(_number(f) and f > 0 for f in factors):
            raise wrong("factors are numbers above 0")
        return Scale(tuple(dict.fromkeys(map(float, factors))))
    if not {"low", "high"} <= said.keys() <= {"low", "high", "log"}:
        raise wrong(f"unknown form {yaml.safe_dump(said, default_flow_style=True).strip()}")
    low, high, log = said["low"], said["high"], said.get("log", False)
    if not (_number(low) and _number(high) and low < high) or (log and low <= 0) or not isinstance(log, bool):
        raise wrong("a range is two numbers, low < high, above 0 with log")
    return Range(low, high, log)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

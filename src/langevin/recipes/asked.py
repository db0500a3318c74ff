"""What a person asked for, put together: a YAML file or nested values, arguments above it, dotted settings above all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langevin.config import TrainConfig, parse, read_yaml, with_settings
from langevin.errors import UsageError
from langevin.recipes.init import absolute

DEFAULT_MINUTES = 10.0


def config_of(
    path: "str | Path | None",
    config: "str | Path | Mapping[str, Any] | None",
    settings: Mapping[str, str] | None,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
) -> TrainConfig:
    """The settings of a new run.

    Args:
        path: the data; a run goes on from any working folder, so that it becomes absolute.
        config: a YAML file or nested values, below everything else.
        settings: dotted ones with their values as text, above everything else.
        given: other arguments, None where nothing was given; a budget among them outranks the one in `config`.
        options: those of the data.

    Raises:
        UsageError: naming the setting that is wrong.
    """
    where = str(config) if isinstance(config, str | Path) else ""
    base = read_yaml(Path(config)) if isinstance(config, str | Path) else dict(config or {})
    if not isinstance(base.get("data", {}), Mapping):
        raise UsageError("`data` must be a mapping", where=where, help="data: {path: photos/}")
    inner = {**(base.get("data") or {}), **_present(options), **({"path": str(path)} if path is not None else {})}
    if "path" not in inner:
        raise UsageError("no data given", help="langevin train PATH, or `langevin train digits` to try it out")
    values = {**base, "data": inner, **_present(given)}
    if given.get("minutes") is not None or given.get("steps") is not None:
        values |= {k: given.get(k) for k in ("minutes", "steps")}
    parsed = parse(with_settings(values, settings or {}), where=where)
    if parsed.minutes is None and parsed.steps is None:
        parsed = parsed.model_copy(update={"minutes": DEFAULT_MINUTES})
    if parsed.init is not None:
        parsed = parsed.model_copy(update={"init": absolute(parsed.init)})
    if parsed.data.path == "digits" and not Path("digits").exists():
        return parsed
    there = str(Path(parsed.data.path).absolute())
    return parsed.model_copy(update={"data": parsed.data.model_copy(update={"path": there})})


def nested(
    path: "str | Path | None",
    config: "str | Path | Mapping[str, Any] | None",
    given: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What was given for a run that is there, as nested settings; the arguments are those of `config_of`."""
    base = read_yaml(Path(config)) if isinstance(config, str | Path) else dict(config or {})
    there = None if path is None else str(Path(path).absolute())
    return {**base, **_present(given), "data": {**dict(base.get("data") or {}), **_present(options), "path": there}}


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is not None}

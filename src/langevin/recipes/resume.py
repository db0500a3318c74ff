"""`langevin train --resume RUN`: what may differ from the sitting before, and what happens to what was finished.

A budget is that of the whole run, over all sittings: the same command line can be given again and again.
"""

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from langevin.config import TrainConfig, parse, read_yaml, with_settings, write_yaml
from langevin.errors import DataError, RefusedError, UsageError
from langevin.recipes.signals import going_on
from langevin.store import free_path, write_file

MAY_CHANGE = (
    "micro_batch",
    "batch",
    "steps",
    "minutes",
    "data.path",
    "sampling",
    "checkpoints",
    "parallel",
    "checkpoint_activations",
    "stop_early",
    "track",
)
"""Settings, and all below them, that a run may go on with changed. Every other one decides what the run is."""
_SEAL = "# what the run is, as it wrote it; sha256 of the rest: "
_RESULTS = ("model", "samples.png", "real-and-generated.png", "training.gif", "figures.json")
"""figures.json is last: while it is there the run counts as finished."""


def settled(run: Path, given: Mapping[str, Any], settings: Mapping[str, str]) -> tuple[TrainConfig, list[str]]:
    """The run's config with what was given changed, and the changes in words.

    Args:
        given: nested values, None where nothing was given.
        settings: dotted ones with their values as text.

    Raises:
        UsageError: something else than `MAY_CHANGE` differs, a budget of another kind, or nothing is left to do.
        RefusedError: config.yaml is not what the run wrote.
    """
    where = str(run / "config.yaml")
    before = parse(_unsealed(run / "config.yaml"), where=where)
    values = with_settings(_over(before.model_dump(), given), settings)
    if values.get("minutes") and values.get("steps"):
        kind = "steps" if before.steps else "minutes"
        raise UsageError(f"this run's budget is in {kind}", where=str(run), help=f"give --{kind}, of the whole run")
    after = parse(values)
    old, new = dict(_flat(before.model_dump(mode="json"))), dict(_flat(after.model_dump(mode="json")))
    changed = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    if others := [k for k in changed if not _may_change(k, after)]:
        said = "; ".join(f"{k} ({old.get(k)}, not {new.get(k)})" for k in others[:10])
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        raise UsageError(
            f"this run keeps its own {said}{more}",
            where=str(run),
            help=f"start a new run; this one can go on with other {', '.join(k for k in MAY_CHANGE if _may_change(k, after))}",
        )
    finished, limit = (run / "figures.json").is_file(), after.private and after.private.steps
    if finished and limit and (after.steps or 0) > limit:
        help = "a longer one is a new run, with more noise or a larger epsilon"
        raise UsageError(
            f"this run is finished, and its epsilon allows no more than {limit:,} steps", where=str(run), help=help
        )
    if finished and not _is_longer(after, before):
        raise UsageError("this run is finished", where=str(run), help=_next(run, before))
    return after, [f"{k} is {new.get(k)} from here on, {old.get(k)} before" for k in changed]


def require_data(run: Path, config: TrainConfig) -> None:
    """Raise DataError where the run's data have gone."""
    there = config.data.path
    if there != "digits" and not Path(there).exists():
        raise DataError(
            "the run's data are not there any more",
            where=there,
            help=f"where they are elsewhere: {going_on(run)} --set data.path=ELSEWHERE",
        )


def put_aside(run: Path) -> Path | None:
    """Move what a finished run made out of the way of what it will make; where to, None where it is not finished."""
    if not (run / "figures.json").is_file():
        return None
    aside = free_path(run / "finished")
    aside.mkdir()
    for name in _RESULTS:
        if (run / name).exists():
            (run / name).rename(aside / name)
    return aside


def keep(run: Path, config: TrainConfig) -> None:
    """Write the settings of this sitting, sealed, where they are not there yet: a flipped byte must not train another model."""
    text, path = write_yaml(config), run / "config.yaml"
    text = f"{_SEAL}{_digest(text)}\n{text}"
    if not path.is_file() or path.read_text("utf-8") != text:
        write_file(path, text)


def _unsealed(path: Path) -> dict[str, Any]:
    """The settings in a run's config.yaml. Raises RefusedError where its seal is not that of the rest."""
    values = read_yaml(path)
    seal, _, rest = path.read_text("utf-8").partition("\n")
    if seal.startswith(_SEAL[:3]) and seal != _SEAL + _digest(rest):
        raise RefusedError(
            "the settings are not those that the run wrote: the file was edited or is damaged",
            where=str(path),
            help="settings that may change are given when resuming (--set, --steps, --minutes); take the others back",
        )
    return values


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _next(run: Path, config: TrainConfig) -> str:
    if config.private and config.private.steps:
        return f"langevin sample {shlex.quote(str(run))} -n 64"
    more = f"--steps {2 * config.steps}" if config.steps else f"--minutes {2 * (config.minutes or 0):g}"
    return f"langevin sample {shlex.quote(str(run))} -n 64, or train it longer: {going_on(run)} {more}"


def _is_longer(after: TrainConfig, before: TrainConfig) -> bool:
    return (after.steps or 0) > (before.steps or 0) or (after.minutes or 0) > (before.minutes or 0)


def _may_change(key: str, config: TrainConfig) -> bool:
    if config.private and key == "batch":  # what was spent was counted for this one
        return False
    return any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE)


def _over(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others over them; None is nothing given."""
    out = dict(values)
    for key, value in given.items():
        if isinstance(value, Mapping):
            out[key] = _over(out.get(key) or {}, value)
        elif value is not None:
            out[key] = value
    return out


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value

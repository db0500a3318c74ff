"""Warm start: first weights from another run, a model folder or a safetensors file.

Weights are matched by name. What does not fit by name and shape is told, all of it, and is an error unless the rest may start
fresh (`init_partial`). Rows of a class table are matched by the names of the classes; a class that is new starts as "no class",
of which the old model learned what all of its data have in common. From a model, a new run also takes what its weights mean:
network, schedule, parametrization and codec, wherever its own config does not say otherwise.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from langevin import registry, store
from langevin.config import TrainConfig
from langevin.data.codec.base import Codec
from langevin.data.dataset import Dataset
from langevin.errors import LangevinError, RefusedError, UsageError
from langevin.model import Model, load, locate, modality_of
from langevin.words import counted

SHOWN = 10
"""So many names of a kind a table shows."""


@dataclass(frozen=True, eq=False)
class Source:
    """Where first weights come from.

    Attributes:
        where: as the user named it.
        tensors: by the names of a network's parameters and buffers.
        model: whose they are; None for a file.
        digest: sha256 of the file.
    """

    where: str
    tensors: dict[str, Tensor]
    model: Model | None
    digest: str


@dataclass(frozen=True)
class Loaded:
    """What became of each tensor, by name.

    Attributes:
        fits: taken as they are.
        classes: class tables, matched by name -> what was done.
        missing: of the network, in no file: they start fresh.
        other: name -> both shapes; they start fresh.
        unused: of the file, in no network.
    """

    fits: tuple[str, ...]
    classes: dict[str, str]
    missing: tuple[str, ...]
    other: dict[str, str]
    unused: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is left over on either side."""
        return not (self.missing or self.other or self.unused)

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"loaded     {counted(len(self.fits) + len(self.classes), 'tensor')}"
        yield from (f"classes    {name}: {what}" for name, what in self.classes.items())
        yield from _rows("missing", self.missing, "start fresh")
        yield from _rows("shape", [f"{name} {what}" for name, what in self.other.items()], "start fresh")
        yield from _rows("not used", self.unused, "are in the file alone")


def _rows(what: str, names: "tuple[str, ...] | list[str]", then: str) -> Iterator[str]:
    if names:
        yield f"{what:<10} {len(names)} {then}: " + ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def source(text: str) -> Source:
    """RUN, MODEL or FILE.safetensors; with `:raw` at its end the weights as the optimizer left them, not their average.

    Raises:
        UsageError: nothing there. RefusedError: damaged, no model, or of a kind that could execute.
    """
    path, weights = Path(text), "ema"
    if not path.exists() and text.endswith((":raw", ":ema")):
        path, weights = Path(text[:-4]), text[-3:]
    if path.is_file():
        store.refuse_unsafe(path)
        if path.suffix != ".safetensors":
            raise RefusedError("first weights come from a run, a model folder or a safetensors file", where=str(path))
        return Source(text, store.read_tensors(path), None, store.digest(path))
    model = load(locate(path), weights=weights)
    return Source(text, dict(model.denoiser.network.state_dict()), model, model.digest)


def absolute(text: str) -> str:
    """The same source, from any working folder."""
    known = not Path(text).exists() and text.endswith((":raw", ":ema"))
    return str(Path(text[:-4]).absolute()) + text[-4:] if known else str(Path(text).absolute())


def begin(model: Model, config: TrainConfig, say: Callable[[str], None]) -> None:
    """Give an untrained model its first weights, and say what was taken from where.

    Raises:
        UsageError: not everything fits, and `init_partial` does not say that the rest may start fresh.
    """
    assert config.init is not None
    found = source(config.init)
    loaded = warm_start(model.denoiser.network, model.classes, found, partial=config.init_partial)
    say(f"init       {found.where}, sha256 {found.digest[:16]}")
    for line in loaded.lines():
        say(line)
    if found.model is not None and found.model.shape != model.shape:
        old, new = (" x ".join(map(str, shape)) for shape in (found.model.shape, model.shape))
        say(f"note       the weights come from data of {old}; these are {new}")


def inherit(config: TrainConfig, dataset: Dataset, found: Source) -> TrainConfig:
    """The config with what it leaves open taken from the model that the weights come from.

    A noun that is given without a name changes the model's. The network's channels and axes are those of the data.
    """
    model = found.model
    if model is None:
        return config
    codec = registry.build(config.codec, Codec, foreign=True) if config.codec else codec_for(dataset, model.codec)
    shape = codec.encode(torch.from_numpy(dataset.items[:1].copy())).shape[1:]
    spec = registry.describe(model.denoiser.network)
    spec.pop("conditions", None)
    if shape[0] != model.shape[0]:
        spec |= {k: shape[0] for k in ("channels", "out_channels") if spec.get(k) == model.shape[0]}
    if "dims" in spec:
        spec["dims"] = len(shape) - 1
    nouns = {
        "network": spec,
        "schedule": registry.describe(model.denoiser.process.schedule),
        "parametrization": registry.describe(model.denoiser.parametrization),
    }
    changes: dict[str, Any] = {"codec": registry.describe(codec)}
    for noun, old in nouns.items():
        given = getattr(config, noun) if noun in config.model_fields_set else None
        if "name" not in (given or {}):
            changes[noun] = {**old, **(given or {})}
    scale = (changes.get("parametrization") or config.parametrization or {}).get("sigma_data")
    if scale is not None and "name" not in (config.weight or {}):
        changes["weight"] = {"name": "karras", "sigma_data": scale, **(config.weight or {})}
    return config.model_copy(update=changes)


def codec_for(dataset: Dataset, old: Codec) -> Codec:
    """The old model's codec where it gives back such data in their own type and shape; else the data's own."""
    own = modality_of(dataset.modality).codec(dataset)
    if type(own) is not type(old) or own.config.get("channels") != old.config.get("channels"):
        return own
    if "squeeze" in own.config:  # how samples are handed out is for the new data to say
        old = type(old)(**{**old.config, "squeeze": own.config["squeeze"]})
    raw = torch.from_numpy(dataset.items[:1].copy())
    try:
        z, expected = old.encode(raw), own.encode(raw)
        back = old.decode(z)
    except (RuntimeError, ValueError, LangevinError):
        return own
    return old if z.shape == expected.shape and back.shape == raw.shape and back.dtype == raw.dtype else own


def warm_start(network: nn.Module, classes: tuple[str, ...], found: Source, *, partial: bool = False) -> Loaded:
    """Give the network its first weights.

    Args:
        classes: of the data, in the order of their indices.
        partial: whether what does not fit may start fresh, or be left.

    Raises:
        UsageError: not everything fits; the message holds the table. The network is as it was.
    """
    wanted = dict(network.state_dict())
    tensors = _best_prefix(found.tensors, wanted)
    old = found.model.classes if found.model is not None else classes
    tables = set(_class_tables(network)) if old and classes else set()
    fits, other, matched, values = [], {}, {}, {}
    for name, own in wanted.items():
        given = tensors.get(name)
        if given is None:
            continue
        if name in tables and old != classes and given.shape == (len(old) + 1, *own.shape[1:]):
            values[name], matched[name] = _by_name(given, old, classes)
        elif given.shape != own.shape or given.is_floating_point() != own.is_floating_point():
            other[name] = f"{tuple(given.shape)}, not {tuple(own.shape)}"
        else:
            values[name] = given
            fits.append(name)
    missing = tuple(name for name in wanted if name not in tensors)
    unused = tuple(name for name in tensors if name not in wanted)
    loaded = Loaded(tuple(fits), matched, missing, other, unused)
    if not values:
        raise UsageError("no tensor there fits the network", where=found.where, help="; ".join(loaded.lines()))
    if not (loaded.whole or partial):
        table = "; ".join(list(loaded.lines())[1:])
        raise UsageError(
            f"the weights do not fit the network: {table}",
            where=found.where,
            help="--init-partial lets what does not fit start fresh",
        )
    with torch.no_grad():
        for name, value in values.items():
            wanted[name].copy_(value)
    return loaded


def _best_prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the prefix below which most of the wanted names are found: none, `ema.`, `module.` and such."""
    prefixes = {"": None, "ema.": None}
    for name in tensors:
        parts = name.split(".")
        prefixes |= {".".join(parts[:k]) + ".": None for k in range(1, min(len(parts), 4))}
    best = max(prefixes, key=lambda p: sum(f"{p}{name}" in tensors for name in wanted))
    return {name.removeprefix(best): value for name, value in tensors.items() if name.startswith(best)}


def _class_tables(network: nn.Module) -> Iterator[str]:
    """Names of the tables whose rows are the data's classes and, last, none."""
    conditions = getattr(network, "conditions", None)
    if "label" in getattr(conditions, "classes", {}):
        yield "conditions.classes.label.weight"


def _by_name(given: Tensor, old: tuple[str, ...], new: tuple[str, ...]) -> tuple[Tensor, str]:
    """The rows of the new classes and of none, and in words where they come from."""
    rows = [old.index(name) if name in old else len(old) for name in new]
    fresh = [name for name in new if name not in old]
    text = f"{len(new) - len(fresh)} of {len(new)} by name"
    text += f"; new ones start as no class: {', '.join(fresh[:SHOWN])}{', ...' * (len(fresh) > SHOWN)}" if fresh else ""
    gone = [name for name in old if name not in new]
    text += f"; gone: {', '.join(gone[:SHOWN])}{', ...' * (len(gone) > SHOWN)}" if gone else ""
    return given[[*rows, len(old)]], text

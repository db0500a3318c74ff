"""What can be set, with its type, range and default. One schema for YAML, the command line and Python.

Settings that choose a noun (schedule, parametrization, weight, time law, network) are `{"name": ..., field: value}`, as
`langevin.registry` describes them. None means: chosen from the data.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from langevin.errors import UsageError, nearest

Noun = dict[str, Any]
Share = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[float, Field(gt=0.001, lt=0.28)]
Count = Annotated[int, Field(ge=1, le=2**53)]


def _kinds(annotation: Any) -> list[Any]:
    """The types that a setting may have, not those of what lies in a list or mapping."""
    if get_origin(annotation) in (tuple, list, dict):
        return [annotation]
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds(part))]


class Part(BaseModel):
    """Frozen; an unknown name is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        """`true` would pass for the number 1."""
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and (int in kinds or float in kinds):
            raise ValueError("must be a number")
        return value


class DataConfig(Part):
    """What to learn from and how to read it."""

    path: str = Field(description="folder, metadata folder, zip, npz, npy, idx file or folder, or `digits`")
    size: int | None = Field(None, ge=4, le=4096, description="side of the pictures; chosen from the data")
    fit: Literal["crop", "pad", "skip"] = Field("crop", description="how pictures of another shape are made to fit")
    matte: str | None = Field(None, description="colour under transparent pictures; transparency is kept without one")
    frames: Literal["first", "all"] = Field("first", description="which frames of animations")
    allow_rejects: float = Field(0.01, ge=0, le=1, description="share of unusable files that is let pass")
    labels: bool = Field(True, description="learn the classes too, where the data have any")
    flip: bool = Field(False, description="mirror pictures at random; only where left and right do not matter")


class OptimizerConfig(Part):
    """How weights follow their gradient: warmed up, decayed to zero over the run."""

    name: str = Field("adamw", description="adamw, muon, lion or package.module:Class")
    lr: float = Field(2e-3, gt=0, description="peak learning rate; the method's own where it is not given")
    betas: tuple[Share, Share] | None = Field(None, description="of moving averages; the method's own")
    weight_decay: float = Field(0.0, ge=0, description="of matrices and kernels; of no bias, norm or embedding")
    settings: dict[str, Any] = Field({}, description="further settings of the method, such as momentum of muon")
    warmup: float = Field(0.02, ge=0, le=1, description="share of the run in which the learning rate rises")
    hold: float = Field(0.0, ge=0, lt=1, description="share of the run before the learning rate falls")
    decay: Literal["cosine", "linear", "constant", "inverse_sqrt"] = Field(
        "cosine", description="how the learning rate falls: to zero, or as 1 / sqrt(progress)"
    )
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="factors on the learning rate by pattern of parameter names; the last that matches counts"
    )
    clip: float = Field(1.0, gt=0, allow_inf_nan=True, description="largest norm of the gradient; .inf for any")
    skip_spikes: bool = Field(False, description="take no step where the gradient is far larger than it has been")


class SamplingConfig(Part):
    """How the model is sampled where nothing else is said."""

    solver: str | Noun | None = Field(None, description="chosen from the number of steps")
    steps: int = Field(12, ge=1, le=10_000)
    grid: str | Noun | None = Field(None, description="chosen from the number of steps")
    guidance: float | None = Field(None, ge=0, le=1000, description="1 is none; with classes 2, in an interval")
    guidance_interval: tuple[float, float] | None = Field(
        None,
        description="sigma / alpha, low and high, in which guidance acts; everywhere beside a guidance that is given",
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the network's products")


class PrivateConfig(Part):
    """Differentially private training; give noise, or epsilon with a number of steps, or both."""

    noise: float | None = Field(None, ge=0.01, le=1e4, description="standard deviation of the noise over `clip`")
    epsilon: float | None = Field(
        None, gt=0, le=1e6, description="what may be spent; the run ends before it spends more"
    )
    delta: float | None = Field(None, gt=0, lt=1, description="min(1e-5, 0.1 / items) where it is not given")
    clip: float = Field(1.0, gt=0, description="largest norm of one item's gradient")
    draws: int = Field(4, ge=1, le=1024, description="times and noises an item has at a step; costs time, no privacy")
    steps: Count | None = Field(None, description="so many spend epsilon")


class ParallelConfig(Part):
    """How weights are spread over processes: copied to each (ddp), or cut into shards (fsdp)."""

    name: Literal["ddp", "fsdp"] = "ddp"


class CheckpointsConfig(Part):
    """How often a run is saved, and what of it is kept. The one with the lowest held-out loss is kept in any case."""

    keep: Count = Field(2, description="so many of the newest are kept")
    every_minutes: float | None = Field(None, gt=0, description="2 where nothing is said")
    every_steps: Count | None = None


class TrainConfig(Part):
    """A training run."""

    data: DataConfig
    minutes: float | None = Field(None, gt=0, description="wall-clock budget of the training")
    steps: Count | None = Field(None, description="number of steps instead of minutes")
    seed: int = Field(0, ge=0, lt=2**63)
    batch: Count | None = Field(None, description="samples a step; 32 on a CPU, where steps count, 128 on a GPU")
    micro_batch: Count | None = Field(None, description="samples at once, where memory is short; same result")
    network: Noun | None = Field(None, description="chosen from the shape and number of the samples")
    codec: Noun | None = Field(None, description="the data's own, or that of the model it starts from")
    schedule: Noun = {"name": "ve"}
    parametrization: Noun | None = Field(None, description="Karras with the data's own standard deviation")
    weight: Noun | None = Field(None, description="Karras with the data's own standard deviation")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the network's products; bfloat16 where the device computes in it. Weights are float32"
    )
    deterministic: bool = Field(False, description="only kernels that give the same bits every time; may be slower")
    parallel: ParallelConfig | None = Field(
        None, description="how weights are spread over processes; ddp under torchrun"
    )
    checkpoint_activations: bool = Field(
        False, description="compute activations again instead of keeping them: less memory, more time, same result"
    )
    compile: bool | Literal["auto"] = Field("auto", description="compile the network: on a GPU, where it pays")
    channels_last: bool | Literal["auto"] = Field(
        "auto", description="lay kernels channels last: on a GPU in half precision, where it pays"
    )
    loss: Literal["denoising", "hybrid"] = Field("denoising", description="hybrid also trains a learned variance")
    uncertainty: bool = Field(False, description="learn how much each noise level weighs")
    times: Noun = {"name": "log_normal"}
    dropout: float = Field(0.1, ge=0, lt=1, description="share of samples that learn without their condition")
    ema: tuple[Width, ...] = Field((0.05, 0.1), min_length=1, description="widths sigma_rel of the averages kept")
    stop_early: bool = Field(True, description="end a run that only overfits any more; the best weights are published")
    snapshots: int = Field(12, ge=0, le=32, description="of the averages, kept for `langevin ema`; 0 for none")
    optimizer: OptimizerConfig = OptimizerConfig()
    freeze: tuple[str, ...] = Field((), description="patterns of parameter names that are not trained")
    init: str | None = Field(
        None, description="first weights: a run, a model or a safetensors file; `RUN:raw` for raw ones"
    )
    init_partial: bool = Field(False, description="what does not fit there may start fresh")
    sampling: SamplingConfig = SamplingConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    track: tuple[str, ...] = Field((), description="trackers that draw the run's course: tensorboard, wandb")
    private: PrivateConfig | None = Field(
        None, description="differentially private training; none where it is not given"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> "TrainConfig":
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give minutes or steps, not both")
        return self


def parse(values: Mapping[str, Any], *, where: str = "") -> TrainConfig:
    """A TrainConfig from nested values. Raises UsageError naming the setting, its place and the nearest right name."""
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        first, *others = error.errors()
        if first["type"] == "extra_forbidden":
            *parents, last = (str(part) for part in first["loc"])
            known = [".".join([*parents, k]) for k in _fields(parents)]
            raise UsageError(
                f"unknown setting `{'.'.join([*parents, last])}`",
                where=where,
                help=nearest(".".join([*parents, last]), known),
            ) from None
        name = _name(first["loc"])
        if first["type"] == "missing":
            raise UsageError(f"`{name}` is missing", where=where) from None
        said = " or ".join(dict.fromkeys(_plainly(one["msg"]) for one in (first, *others) if _name(one["loc"]) == name))
        what = f"`{name}` {said.replace(' or must be ', ' or ')}, not {first['input']!r}" if name else said
        raise UsageError(what, where=where) from None


_KINDS = re.compile(r"bool|str|dict\[.*|literal\[.*")
_PLAIN = {
    r"^Input should ": "must ",
    r"^Value error, ": "",
    r"^Unable to parse .* exceeded maximum size": "is too large",
    r"a valid dictionary( or instance of \w+)?": "a mapping of settings",
    r"a valid tuple": "a list",
    r"a valid string": "text",
    r"a valid integer.*": "a whole number",
    r"a valid number.*": "a number",
    r"a valid boolean.*": "true or false",
}


def _name(loc: tuple[int | str, ...]) -> str:
    """A setting's dotted name, without the kinds of value that were tried there."""
    return ".".join(str(part) for part in loc if not _KINDS.fullmatch(str(part)))


def _plainly(message: str) -> str:
    """What the schema says of a value, in everyday words."""
    for pattern, words in _PLAIN.items():
        message = re.sub(pattern, words, message)
    return message


def _fields(parents: list[str]) -> list[str]:
    model: Any = TrainConfig
    for parent in parents:
        found = model.model_fields[parent].annotation
        model = next((part for part in get_args(found) if hasattr(part, "model_fields")), found)
    return list(model.model_fields)


def with_settings(values: dict[str, Any], settings: Mapping[str, str]) -> dict[str, Any]:
    """Nested values with dotted settings laid over them: {"optimizer.lr": "1e-3"}; the text is read as YAML.

    A setting of a noun that has a default changes that default: {"schedule.sigma_max": "50"}.
    """
    import yaml

    out = dict(values)
    for dotted, text in settings.items():
        *parents, last = dotted.split(".")
        inner = out
        for parent in parents:
            deeper = inner.get(parent, _default(parent) if inner is out else None)
            inner[parent] = dict(deeper) if isinstance(deeper, Mapping) else {}
            inner = inner[parent]
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"`{dotted}`: not readable YAML: {' '.join(str(error).split())}") from None
        if isinstance(value, str):  # YAML 1.1 takes 1e-3 for text
            with suppress(ValueError):
                value = float(value)
        inner[last] = value
    return out


def _default(name: str) -> Any:
    """The default of a noun; None for what is no noun or has none."""
    field = TrainConfig.model_fields.get(name)
    return field.default if field is not None and isinstance(field.default, dict) else None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; nothing in it can execute. Raises UsageError."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError("there is no such file", where=str(path)) from None
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"not readable YAML: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(found, dict):
        raise UsageError("not a mapping of settings", where=str(path))
    return found


def write_yaml(config: TrainConfig) -> str:
    """The config, every setting written out."""
    import yaml

    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))

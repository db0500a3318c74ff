"""From data to a plan: what is chosen where the user says nothing. A function of shape, count, conditions and budget."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from langevin import registry
from langevin.config import TrainConfig
from langevin.data.codec.base import Codec
from langevin.data.dataset import Dataset
from langevin.diffusion import GaussianDiffusion, NetworkDenoiser, Schedule
from langevin.diffusion.parametrization import Parametrization
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.errors import DataError, UsageError
from langevin.model import Model, load, modality_of
from langevin.networks import default_size, keep_memory
from langevin.networks.base import Network
from langevin.recipes import init
from langevin.recipes.machine import multiplies_bfloat16
from langevin.training import TrainState, private
from langevin.training.distributed import World
from langevin.training.feed import Feed
from langevin.training.optimizer import default_lr
from langevin.training.private import PrivateFeed

T = TypeVar("T")
GUIDANCE, INTERVAL = 2.0, (0.1, 3.0)
"""Of samples with a class, where nothing is said, and the noise levels, sigma / alpha, at which it acts for a side up to 32:
above them it takes variety, below them it does nothing (Kynkaanniemi et al., "Applying Guidance in a Limited Interval", 2024)."""
MEASURED = 4096
"""So many items are looked at for the standard deviation of the data."""


@dataclass(frozen=True)
class Plan:
    """A resolved config, and an untrained model made from it.

    Attributes:
        config: nothing left open but the budget.
        model: with the network's first weights.
    """

    config: TrainConfig
    model: Model


def device() -> str:
    """What a run trains on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def ready(run: Path) -> Model:
    """The model of a run, where it will compute. What the process frees from here on it keeps, which makes samples a fifth faster."""
    keep_memory()
    return load(run).to(device())


def computes_in_bfloat16() -> bool:
    """Whether the device has products of bfloat16 in hardware."""
    if device() == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and multiplies_bfloat16()


def measured_std(dataset: Dataset, codec: Codec) -> float:
    """Standard deviation of the training items in model space around 0, over all entries (EDM's sigma_data)."""
    rows = dataset.train_indices
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MEASURED)).astype(int)]
    total, count = 0.0, 0
    for part in np.array_split(rows, max(1, len(rows) // 256)):
        z = codec.encode(torch.from_numpy(np.array(dataset.items[part]))).double()
        total, count = total + z.square().sum().item(), count + z.numel()
    return float(np.sqrt(total / max(count, 1)))


def noise_scale(shape: tuple[int, ...]) -> float:
    """How much more noise items of (*spatial, C) are seen through than those with a side up to 32: in proportion to their
    side (Hoogeboom et al. 2023, eq. 4).
    """
    return max(*shape[:-1], 32) / 32 if shape[:-1] else 1.0


def noise_mean(shape: tuple[int, ...]) -> float:
    """Mean of log sigma in training for items of (*spatial, C): -1.2 (Karras et al. 2022) up to a side of 32, more above."""
    return round(-1.2 + math.log(noise_scale(shape)), 3)


def noun(config: TrainConfig, setting: str, base: type[T], **more: Any) -> T:
    """What a setting describes. Raises UsageError naming the setting."""
    try:
        return registry.build({**more, **(getattr(config, setting) or {})}, base, foreign=True)
    except UsageError as error:
        raise UsageError(f"`{setting}`: {error.what}", where=error.where, help=error.help) from error


def codec_of(config: TrainConfig, dataset: Dataset) -> Codec:
    """The config's codec, or the data's own."""
    if config.codec is not None:
        return noun(config, "codec", Codec)
    return modality_of(dataset.modality).codec(dataset)


def resolve(config: TrainConfig, dataset: Dataset, scale: float = 1.0) -> TrainConfig:
    """The config with every open choice made from the data, or taken from the model it starts from.

    Args:
        scale: of the network's widths, where it is chosen here.
    """
    if config.init is not None:
        config = init.inherit(config, dataset, init.source(config.init))
    codec = codec_of(config, dataset)
    changes: dict[str, Any] = {}
    for noun in ("parametrization", "weight"):  # a setting without a name changes the default
        given = getattr(config, noun) or {}
        if "name" not in given:
            sigma_data = float(f"{max(measured_std(dataset, codec), 0.05):.3g}")
            changes[noun] = {"name": "karras", "sigma_data": sigma_data, **given}
    if "name" not in (config.network or {}):
        shape = codec.encode(torch.from_numpy(np.array(dataset.items[:1]))).shape[1:]
        size = default_size(tuple(shape), len(dataset.train_indices), scale)
        changes["network"] = {"name": "mlp" if len(shape) == 1 else "unet", **size, **(config.network or {})}
    if config.times == {"name": "log_normal"}:
        changes["times"] = {"name": "log_normal", "mean": noise_mean(dataset.shape), "std": 1.2}
    if "lr" not in config.optimizer.model_fields_set:
        changes["optimizer"] = config.optimizer.model_copy(update={"lr": default_lr(config.optimizer.name)})
    if config.sampling.guidance is None:
        acts = bool(dataset.classes) and config.dropout > 0
        own: dict[str, Any] = {"guidance": GUIDANCE if acts else 1.0}
        if acts and config.sampling.guidance_interval is None:
            low, high = (round(v * noise_scale(dataset.shape), 3) for v in INTERVAL)
            own["guidance_interval"] = low, high
        changes["sampling"] = config.sampling.model_copy(update=own)
    batch = config.batch or (128 if device() == "cuda" else 32)
    changes["batch"] = max(1, min(batch, len(dataset.train_indices)))
    if config.private:
        if not len(dataset.held_out_indices):
            raise DataError(
                f"a private run is judged by held-out items, and of {len(dataset):,} none is held out",
                where=dataset.audit.source,
                help="more items, or a column `split` that says which are held out",
            )
        changes["private"] = private.settle(config.private, len(dataset.train_indices), changes["batch"], config.steps)
        changes["precision"] = "float32"
        if config.precision == "bfloat16":
            raise UsageError("gradients of single items are found in float32", help="leave the precision out")
        if config.uncertainty or config.times.get("name") == "loss_aware":
            raise UsageError(
                "a private run learns nothing from its losses", help="leave uncertainty and loss_aware out"
            )
    elif config.precision == "auto":
        changes["precision"] = "bfloat16" if computes_in_bfloat16() else "float32"
    return config.model_copy(update=changes)


def make(config: TrainConfig, dataset: Dataset) -> Model:
    """An untrained model of a resolved config; its first weights are a function of the run's seed."""
    codec = codec_of(config, dataset)
    z = codec.encode(torch.from_numpy(np.array(dataset.items[:1])))
    parametrization = noun(config, "parametrization", Parametrization)
    conditions = {"label": {"kind": "class", "num": len(dataset.classes)}} if dataset.classes else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = noun(config, "network", Network, conditions=conditions)
    schedule = noun(config, "schedule", Schedule)
    labels = dataset.columns["label"][dataset.train_indices] if dataset.classes else np.zeros(0, int)
    weights = np.bincount(labels[labels >= 0], minlength=len(dataset.classes)) if dataset.classes else []
    return Model(
        denoiser=NetworkDenoiser(network, GaussianDiffusion(schedule), parametrization),
        codec=codec,
        modality=dataset.modality,
        shape=tuple(z.shape[1:]),
        classes=dataset.classes,
        class_weights=tuple(float(w) for w in weights),
        sampling=config.sampling.model_dump(),
    )


def feed(config: TrainConfig, dataset: Dataset, codec: Codec, state: TrainState, world: World) -> Feed:
    """The batches of a resolved config's run, for one of its processes."""
    kind, more = (PrivateFeed, {"state": state, "draws": config.private.draws}) if config.private else (Feed, {})
    return kind(
        dataset,
        codec,
        dataset.train_indices,
        config.seed,
        config.batch or 1,
        drop=config.dropout,
        mirror=config.data.flip,
        device=world.device,
        rank=world.rank,
        world=world.size,
        **more,
    )


def words(config: TrainConfig, network: nn.Module, device: torch.device) -> str:
    """The line that says what a run will do."""
    parameters = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    size = f"{parameters / 1e6:.2f} M parameters" + f" ({trained / 1e6:.2f} M trained)" * (trained < parameters)
    budget = f"{config.steps:,} step{'s' * (config.steps > 1)}" if config.steps else f"{config.minutes:g} min"
    threads = torch.get_num_threads()
    where = f"{config.precision} on {device.type} ({threads} thread{'s' * (threads > 1)})"
    plan = f"plan       {size}, batch {config.batch}, {budget}, {where}"
    if config.private and config.private.steps is not None:
        most = f"{config.private.steps:,} step{'s' * (config.private.steps > 1)}"
        plan += f"\nprivate    with noise {config.private.noise:.3g} what may be spent is enough for {most}: then the run ends"
    return plan


def check(config: TrainConfig, dataset: Dataset) -> None:
    """Build every noun of a resolved config once. Raises UsageError for one that cannot be."""
    model = make(config, dataset)
    model.solver()
    model.grid()
    noun(config, "weight", Weight)
    noun(config, "times", TimeLaw)
    if config.init is not None:
        init.begin(model, config, lambda line: None)
    TrainState.start(model.denoiser.network, config)

"""A trained model: a denoiser, the codec to the data's own form, what its conditions are called. A folder on disk.

    config.json         what it is made of, by name; how to sample it; where it comes from; its figures
    model.safetensors   the weights, `ema.` (sampled from) and `raw.` (as the optimizer left them)
    README.md           a card for people
    manifest.json       sha256 of each file

Nothing in the folder can execute: it is JSON, text and safetensors, and names in config.json reach only langevin's own rooms.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin import __version__, registry, store
from langevin.card import card
from langevin.data.codec.base import Codec
from langevin.data.modality.base import Modality
from langevin.diffusion import Denoiser, GaussianDiffusion, NetworkDenoiser, Schedule
from langevin.diffusion.parametrization import Parametrization
from langevin.errors import RefusedError, UsageError, nearest
from langevin.finite import refuse_broken
from langevin.guidance import ClassifierFree, Interval
from langevin.networks.base import Network
from langevin.rng import generator
from langevin.solvers import sample
from langevin.solvers.base import Solver
from langevin.solvers.default import default
from langevin.solvers.grids import Grid
from langevin.words import counted

FORMAT = 1
MAX_STEPS = 10_000
PRECISIONS = ("float32", "bfloat16")
_NOT_A_MODEL = (
    UsageError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
)
_LABELS = 1 << 63  # the stream from which labels nobody asked for are drawn


@dataclass
class Model:
    """All that is needed to sample, and to say what it was.

    Attributes:
        denoiser: with the averaged weights.
        codec: raw arrays <-> model space.
        modality: its name, "image".
        shape: of one sample in model space, (C, *spatial).
        classes: names of the label's values; () without labels.
        class_weights: how frequent each class is in the data; for samples whose label nobody chose.
        sampling: defaults: solver, steps, grid, guidance, guidance_interval.
        about: data, training and figures, as JSON-ready values for the card.
        raw: the weights as the optimizer left them, by name.
        digest: sha256 of model.safetensors; "" for a model that was not read from disk.
    """

    denoiser: NetworkDenoiser
    codec: Codec
    modality: str
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Tensor] | None = None
    digest: str = ""

    def labels(self, seeds: Sequence[int], label: "int | str | Sequence[int | str] | None" = None) -> np.ndarray | None:
        """(B,) class indices for these seeds; None for a model without labels.

        A label that is not given is drawn with the seed of its sample, as frequent as in the data.

        Raises:
            UsageError: unknown label, with the nearest known one; or labels and seeds that differ in number.
        """
        if not self.classes:
            if label is not None:
                raise UsageError("this model was trained without labels", help="leave the label out")
            return None
        if label is None:
            p = np.cumsum(self.class_weights) / np.sum(self.class_weights)
            draws = [generator(seed, _LABELS).random() for seed in seeds]
            return np.minimum(np.searchsorted(p, draws, side="right"), len(self.classes) - 1).astype(np.int64)
        wanted = [label] * len(seeds) if isinstance(label, str | int | np.integer) else list(label)
        if len(wanted) != len(seeds):
            raise UsageError(
                f"{counted(len(wanted), 'label')} for {counted(len(seeds), 'sample')}",
                help="give one label, or one a sample",
            )
        return np.array([self._class_index(w) for w in wanted], np.int64)

    def _class_index(self, label: "int | str") -> int:
        if str(label) in self.classes:
            return self.classes.index(str(label))
        if not isinstance(label, str) and 0 <= int(label) < len(self.classes):
            return int(label)
        raise UsageError(f"unknown label `{label}`", help=nearest(str(label), self.classes))

    def solver(self, name: "str | Mapping[str, Any] | Solver[Any] | None" = None) -> Solver[Any]:
        """A solver by name, by description or itself; the model's own for its own number of steps where none is given."""
        return self.method(solver=name)[1]

    def grid(self, name: "str | Mapping[str, Any] | Grid | None" = None) -> Grid:
        """A grid by name, by description or itself; the model's own for its own number of steps where none is given."""
        return self.method(grid=name)[2]

    def method(
        self,
        steps: int | None = None,
        solver: "str | Mapping[str, Any] | Solver[Any] | None" = None,
        grid: "str | Mapping[str, Any] | Grid | None" = None,
    ) -> tuple[int, Solver[Any], Grid]:
        """How to sample: (steps, solver, grid).

        What is not given is the model's own: what was tuned for so many steps, where neither solver nor grid is given; then
        what it was trained with; then `langevin.solvers.default`.
        """
        own: Mapping[str, Any] = self.sampling
        steps = own.get("steps", 12) if steps is None else steps
        _within("steps", steps, 1, MAX_STEPS)
        if steps != int(steps):
            raise UsageError("steps must be a whole number")
        if solver is None and grid is None:
            own = self.tuned(int(steps)) or own
        solver_else, grid_else = default(int(steps))
        return (
            int(steps),
            _noun(solver, own.get("solver") or solver_else, Solver),
            _noun(grid, own.get("grid") or grid_else, Grid),
        )

    def tuned(self, steps: int) -> Mapping[str, Any] | None:
        """What `langevin tune` found for so many steps: {"solver": ..., "grid": ...}; None where it was not asked."""
        found = self.sampling.get("tuned")
        return found.get(str(steps)) if isinstance(found, Mapping) else None

    def guided(
        self,
        guidance: "float | Callable[[Denoiser], Denoiser] | None" = None,
        interval: "Sequence[float] | None" = None,
        rescale: float | None = None,
        negative_label: "int | str | None" = None,
    ) -> Denoiser:
        """The denoiser under guidance; the arguments are those of `sample`."""
        more = {"interval": interval, "rescale": rescale or None, "negative_label": negative_label}
        asked = ", ".join(name for name, value in more.items() if value is not None)
        if callable(guidance):
            if asked:
                raise UsageError(f"a guidance of your own takes no {asked}", help="give them to its own wrapper")
            return guidance(self.denoiser)
        if guidance is None:
            guidance = self.sampling.get("guidance", 1.0)
            interval = self.sampling.get("guidance_interval") if interval is None else interval
        scale = float(guidance)
        _within("guidance", scale, 0, 1000)
        if scale == 1 and asked:
            raise UsageError(f"without guidance there is no {asked}", help="give guidance too, such as 2")
        label = None if negative_label is None else self.labels([0], [negative_label])
        against = None if label is None else {"label": torch.from_numpy(label)}
        guided = ClassifierFree(self.denoiser, scale, rescale=rescale or 0.0, against=against)
        if interval is None:
            return guided
        if len(interval) != 2:
            raise UsageError("an interval of guidance is two numbers", help="such as 0.3,5")
        return Interval(guided, self.denoiser, *map(float, interval))

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        label: "int | str | Sequence[int | str] | None" = None,
        steps: int | None = None,
        solver: "str | Mapping[str, Any] | Solver[Any] | None" = None,
        grid: "str | Mapping[str, Any] | Grid | None" = None,
        guidance: "float | Callable[[Denoiser], Denoiser] | None" = None,
        guidance_interval: "Sequence[float] | None" = None,
        guidance_rescale: float | None = None,
        negative_label: "int | str | None" = None,
        precision: str | None = None,
        batch: int = 64,
        exact: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Samples in the data's own layout, range and dtype, e.g. uint8 (n, H, W, C).

        Sample k is a function of its seed alone: the same alone or in company, up to rounding, and the same bits with
        `exact`.

        Args:
            n: how many, with the seeds seed, seed + 1, ...; 1 where neither n nor seeds is given.
            seeds: one a sample, instead of n and seed.
            label: a class by name or index, or one a sample; drawn as frequent as in the data where it is not given.
            steps: steps of the solver, 1 to 10,000.
            solver, grid: by name, by description or themselves; see `method` for what is taken where they are not given.
            guidance: strength of classifier-free guidance; 1 is none, the model's own where it is not given. Or your own: a
                function that wraps the denoiser, such as `lambda d: APG(d, 4.0)`.
            guidance_interval: (low, high) of sigma / alpha in which guidance acts; everywhere beside a guidance that is given,
                the model's own beside its own.
            guidance_rescale: 0 to 1, how much of the contrast that guidance adds is taken back.
            negative_label: a class that guidance leads away from, in the place of none.
            precision: of the network's products, "float32" or "bfloat16": nearly the same samples in half the time, where the
                device has hardware for it; the model's own where it is not given.
            batch: how many at once.
            exact: one at a time, so that company cannot change a bit.
            progress: called with (done, n).

        Raises:
            UsageError: a value out of range or an unknown name.
        """
        if seeds is None:
            seeds = range(int(seed), int(seed) + (1 if n is None else int(n)))
        seeds = [int(s) for s in seeds]
        denoiser = self.guided(guidance, guidance_interval, guidance_rescale, negative_label)
        _within("the number of samples", len(seeds), 1, 10_000_000)
        _within("the batch", batch, 1, 1_000_000)
        _within("the smallest seed", min(seeds), 0, 2**64 - 1)
        (steps, chosen, visits), labels = self.method(steps, solver, grid), self.labels(seeds, label)
        precision = self.sampling.get("precision", "float32") if precision is None else precision
        if precision not in PRECISIONS:
            raise UsageError(f"samples have no precision `{precision}`", help=nearest(str(precision), PRECISIONS))
        try:
            times = visits(self.denoiser.process.schedule, steps)
        except ValueError as error:
            raise UsageError(str(error)) from None
        device, out = next(self.denoiser.parameters()).device, []
        was_training = self.denoiser.training
        self.denoiser.eval()
        for rows in torch.arange(len(seeds)).split(1 if exact else batch):
            mine = [seeds[i] for i in rows.tolist()]
            cond = None if labels is None else {"label": torch.from_numpy(labels[rows.numpy()]).to(device)}
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                z = sample(denoiser, chosen, self.shape, times, seeds=mine, cond=cond)
            out.append(self.codec.decode(z).cpu().numpy())
            if progress is not None:
                progress(rows[-1].item() + 1, len(seeds))
        self.denoiser.train(was_training)
        items = np.concatenate(out)
        return items[..., 0] if getattr(self.codec, "squeeze", False) else items

    def describe(self) -> dict[str, Any]:
        """config.json: everything but the weights."""
        return {
            "format": FORMAT,
            "langevin": __version__,
            "modality": self.modality,
            "shape": list(self.shape),
            "classes": list(self.classes),
            "class_weights": [float(w) for w in self.class_weights],
            "schedule": registry.describe(self.denoiser.process.schedule),
            "parametrization": registry.describe(self.denoiser.parametrization),
            "network": registry.describe(self.denoiser.network),
            "codec": registry.describe(self.codec),
            "sampling": self.sampling,
            "about": self.about,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name, `ema.` and `raw.`."""
        ema = {f"ema.{k}": v for k, v in self.denoiser.network.state_dict().items()}
        return ema | {f"raw.{k}": v for k, v in (self.raw or self.denoiser.network.state_dict()).items()}

    def write(self, folder: Path) -> None:
        """Put the model's three files into a folder that is there; `save` does so safely."""
        (folder / "config.json").write_text(json.dumps(self.describe(), indent=1), "utf-8")
        store.write_tensors(folder / "model.safetensors", self.tensors())
        (folder / "README.md").write_text(card(self), "utf-8", errors="replace")

    def save(self, path: "str | Path", *, replace: bool = False) -> Path:
        """Write the model folder, whole or not at all.

        Raises UsageError where it is there already, DivergedError where a weight is not finite.
        """
        path = Path(path)
        refuse_broken(self.tensors(), where=str(path))
        if not replace:
            store.refuse_taken(path)
        return store.write_folder(path, self.write, size=store.size_of(self.tensors()), replace=replace)

    def to(self, device: "str | torch.device") -> "Model":
        """The model with its network on another device."""
        self.denoiser.to(device)
        return self


def _within(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{what} must lie between {low:,} and {high:,}, not {value:,}")


def _noun(given: Any, otherwise: Any, base: type) -> Any:
    """What the calling program gave, which may name code of its own, or else the model's default, which may not."""
    what = otherwise if given is None else given
    if isinstance(what, base):
        return what
    return registry.build({"name": what} if isinstance(what, str) else dict(what), base, foreign=given is not None)


def modality_of(name: str) -> Modality:
    """The modality of that name."""
    return registry.find("langevin.data.modality", name, Modality)()


def locate(path: "str | Path") -> Path:
    """The model folder that `path` means: itself, a run's `model`, or else a run's newest sound checkpoint.

    Raises:
        UsageError: nothing there. RefusedError: a kind of file that could execute, or no model.
    """
    path = Path(path)
    if not path.exists():
        runs = [p.name for p in sorted(path.parent.glob("*")) if p.is_dir()] if path.parent.is_dir() else []
        raise UsageError(
            "there is no such model or run", where=str(path), help=nearest(path.name, runs) if runs else ""
        )
    store.refuse_unsafe(path)
    if not path.is_dir():
        raise RefusedError("a model is a folder with a config.json", where=str(path))
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return folder
    for folder in sorted((path / "checkpoints").glob("step-*"), reverse=True):
        try:
            store.verify(folder)
        except RefusedError:
            continue
        return folder
    raise RefusedError("there is no model in this folder", where=str(path), help="give a run or a model folder")


def load(path: "str | Path", *, weights: str = "ema") -> Model:
    """The model in a folder (a model folder or a run). Nothing in it is executed.

    Args:
        weights: "ema", the averaged ones, or "raw".

    Raises:
        UsageError: nothing there.
        RefusedError: damaged, of a newer format, or of a kind that could execute; exit code 7.
    """
    if weights not in ("ema", "raw"):
        raise UsageError(f"weights must be `ema` or `raw`, not `{weights}`")
    folder = locate(path)
    config = store.read_json(folder / "config.json")
    if not isinstance(config.get("format"), int):
        raise RefusedError("config.json has no format: it is not a langevin model", where=str(folder))
    if config["format"] > FORMAT:
        raise RefusedError(
            f"the model is of format {config['format']}, written by langevin {config.get('langevin')}; "
            f"this is langevin {__version__}, which reads up to format {FORMAT}",
            where=str(folder),
            help="upgrade langevin",
        )
    store.verify(folder)
    path = folder / "model.safetensors"
    try:
        with torch.device("meta"):  # takes no memory: a size that the file does not hold is refused before it is taken
            expected = _from_config(config).tensors()
    except _NOT_A_MODEL as error:
        raise RefusedError(f"config.json does not describe a model: {error!r}", where=str(folder)) from error
    tensors = store.read_tensors(path, expected)
    model = _from_config(config)
    parts = {
        part: {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
        for part in ("ema", "raw")
    }
    model.denoiser.network.load_state_dict(parts[weights])
    return replace(model, raw=parts["raw"], digest=store.digest(path))


def _from_config(config: Mapping[str, Any]) -> Model:
    process = GaussianDiffusion(registry.build(config["schedule"], Schedule))
    parametrization = registry.build(config["parametrization"], Parametrization)
    network = registry.build(config["network"], Network)
    denoiser = NetworkDenoiser(network, process, parametrization).eval().requires_grad_(False)
    return Model(
        denoiser=denoiser,
        codec=registry.build(config["codec"], Codec),
        modality=str(config["modality"]),
        shape=tuple(int(n) for n in config["shape"]),
        classes=tuple(str(c) for c in config["classes"]),
        class_weights=tuple(float(w) for w in config["class_weights"]),
        sampling=dict(config["sampling"]),
        about=dict(config["about"]),
    )

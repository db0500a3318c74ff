"""`langevin classifier`: a classifier of noisy samples, trained on a run's own data, to guide its model.

runs/NAME-k/classifier/   config.json  classifier.safetensors  manifest.json
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin import __version__, registry, store
from langevin.data.dataset import Dataset
from langevin.diffusion import Condition, GaussianDiffusion, Schedule
from langevin.diffusion.parametrization import Parametrization
from langevin.diffusion.weights import Weight
from langevin.errors import RefusedError, UsageError
from langevin.guidance import NoisyClassifier
from langevin.model import Model, load
from langevin.networks import default_size
from langevin.networks.base import Network
from langevin.recipes import folders, plan
from langevin.recipes.console import Console
from langevin.recipes.reopen import reopen
from langevin.recipes.signals import StopRequest, at_each_evaluation, stop_requests
from langevin.rng import Noise, SampleNoise
from langevin.training import TrainState, fit
from langevin.training.feed import Feed
from langevin.words import counted

FORMAT = 1
RATIOS = (0.1, 0.5, 1.0, 2.0, 5.0)
"""sigma / alpha at which the classifier is measured."""
LATER = 1.0
"""Mean of log(sigma / alpha) in training above that of denoisers: what a sample will be is decided in more noise than how it looks."""
_HELD_OUT, _STREAM = 512, 9


def train_classifier(
    run: "str | Path",
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> Path:
    """Train a noise-aware classifier on a run's data and process; its folder, RUN/classifier.

    Args:
        run: a run with labels, finished or with a checkpoint.
        minutes, steps: budget; one minute where neither is given.

    Raises:
        UsageError: no run, no labels, or a classifier that is there already. DataError: other data than the run's.
    """
    run, console = Path(run), console or Console()
    folders.found(run, "config.yaml", "run")
    target = run / "classifier"
    store.refuse_taken(target)
    model = load(run)
    if not model.classes:
        raise UsageError("this run was trained without labels: there is nothing to classify", where=str(run))
    with stop_requests() as stop, console:
        return _train(run, target, model, {"steps": steps, "minutes": minutes}, seed, console, stop)


def _train(
    run: Path, target: Path, model: Model, given: Mapping[str, Any], seed: int, console: Console, stop: StopRequest
) -> Path:
    def heed() -> None:
        stop.heed("stopped before the classifier was done: nothing of it is kept")

    config, dataset = reopen(run, heed)
    steps, minutes = given["steps"], given["minutes"]
    budget = {"steps": steps, "minutes": minutes or (None if steps else 1.0)}
    own = {"seed": seed, "ema": (0.05,), "uncertainty": False, "micro_batch": None, **budget}
    mean = plan.noise_mean(dataset.shape) + LATER
    config = config.model_copy(update={**own, "times": {"name": "log_normal", "mean": mean, "std": 1.4}})
    spec, classifier = _fresh(model, seed)
    device = torch.device(plan.device())
    classifier.to(device)
    state = TrainState.start(classifier.network, config)
    rows, batch = dataset.train_indices, config.batch or 1
    feed = Feed(dataset, model.codec, rows, seed, batch, mirror=config.data.flip, device=device)
    at_each_evaluation(classifier.network, heed)
    for metrics in fit(classifier, feed, config, state, compute=surprise):
        text = f"step {metrics.step:,}  nats {metrics.loss:.3f}"
        console.progress("training", metrics.progress, text, step=metrics.step, loss=metrics.loss)
    console.done()
    classifier.network.load_state_dict({**classifier.network.state_dict(), **state.averages[0.05]})
    classifier.eval()
    _say_accuracy(classifier, feed, dataset, console)
    described = {
        "format": FORMAT,
        "langevin": __version__,
        "classes": list(model.classes),
        "schedule": registry.describe(model.denoiser.process.schedule),
        "parametrization": registry.describe(model.denoiser.parametrization),
        "network": spec,
    }

    def write(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(described, indent=1), "utf-8")
        store.write_tensors(folder / "classifier.safetensors", classifier.network.state_dict())

    store.write_folder(target, write, size=store.size_of(classifier.network.state_dict()))
    console.say(f"classifier {target}")
    name = shlex.quote(model.classes[0])
    console.say(f"next       langevin sample {shlex.quote(str(run))} --label {name} --classifier-scale 4")
    return target


def surprise(
    classifier: NoisyClassifier, x0: Tensor, t: Tensor, noise: Noise, weight: Weight, *, cond: Condition
) -> Tensor:
    """(B,) nats, -log p(label | x_t); 0 for a sample without a label. `weight` is of denoising and not used."""
    logits = classifier(classifier.process.corrupt(x0, t, noise), t)
    return torch.nn.functional.cross_entropy(
        logits.float(), cond["label"], reduction="none", ignore_index=logits.shape[1]
    )


def load_classifier(run: "str | Path") -> NoisyClassifier:
    """The classifier beside a run's model. Nothing in its folder is executed.

    Raises:
        UsageError: the run has none. RefusedError: damaged, or no classifier.
    """
    folder = Path(run) / "classifier"
    if not (folder / "config.json").is_file():
        raise UsageError(
            "this run has no classifier", where=str(run), help=f"langevin classifier {shlex.quote(str(run))}"
        )
    store.verify(folder)
    config = store.read_json(folder / "config.json")
    try:
        with torch.device("meta"):  # a size that the file does not hold is refused before memory is taken
            expected = registry.build(config["network"], Network).state_dict()
        tensors = store.read_tensors(folder / "classifier.safetensors", expected)
        network = registry.build(config["network"], Network)
        network.load_state_dict(tensors)
        process = GaussianDiffusion(registry.build(config["schedule"], Schedule))
        parametrization = registry.build(config["parametrization"], Parametrization)
    except (UsageError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RefusedError(f"config.json does not describe a classifier: {error!r}", where=str(folder)) from error
    return NoisyClassifier(network, process, parametrization).eval().requires_grad_(False)


def _fresh(model: Model, seed: int) -> tuple[dict[str, Any], NoisyClassifier]:
    """A small network with a channel a class, as it is described, and the untrained classifier made of it."""
    kind = {"name": "mlp" if len(model.shape) == 1 else "unet"}
    spec = {**kind, **default_size(model.shape, 0), "out_channels": len(model.classes)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = registry.build(spec, Network)
    return registry.describe(network), NoisyClassifier(network, model.denoiser.process, model.denoiser.parametrization)


@torch.no_grad()
def _say_accuracy(classifier: NoisyClassifier, feed: Feed, dataset: Dataset, console: Console) -> None:
    """Share of unseen items that are classified rightly, by noise level."""
    rows = dataset.held_out_indices if len(dataset.held_out_indices) else dataset.train_indices
    x0, cond = feed.items(rows[np.linspace(0, len(rows) - 1, min(len(rows), _HELD_OUT)).astype(int)])
    noise = SampleNoise([(feed.seed, i, 0, _STREAM) for i in range(len(x0))])(x0)
    right = []
    for ratio in RATIOS:
        t = classifier.process.schedule.inverse(-2 * torch.tensor(ratio, dtype=torch.float64).log())
        guess = classifier(classifier.process.corrupt(x0, t, lambda like: noise), t).argmax(1)
        right.append((guess == cond["label"]).double().mean().item())
    which = "held-out" if len(dataset.held_out_indices) else "training"
    console.say(f"right labels of {counted(len(x0), f'{which} item')} by noise level")
    console.say("  sigma " + " ".join(f"{r:8.3g}" for r in RATIOS))
    console.say("  right " + " ".join(f"{v:8.1%}" for v in right))

"""What a run costs beside its steps: `langevin train` against a bare loop of the same step.

    python benchmarks/training_overhead.py [--steps 100] [--rounds 7] [--threads 2] [--data PATH] [--minutes 10] [--runs FOLDER]

First the loop: `fit` (data order, keyed noise and times, several averages, checks of every number) against the same network,
loss, clipping, optimizer and one average on tensors that lie there, noise by torch.randn, and nothing else. In turn, round after
round; the median of seconds a step, and the ratio of the medians with the extremes of the rounds' own ratios.

Then, with --minutes, a whole run as the command makes it: of the time between its first step and its last, how much went into
anything but steps (looks, previews, snapshots, checkpoints, metrics, what is said). Prints markdown.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from langevin import data
from langevin.config import TrainConfig, parse
from langevin.data.dataset import Dataset
from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.weights import Weight
from langevin.recipes import plan
from langevin.registry import build
from langevin.training import TrainState, ema, fit
from langevin.training.feed import Feed


def start(config: TrainConfig, dataset: Dataset) -> tuple[object, TrainState, Feed]:
    model = plan.make(config, dataset)
    state = TrainState.start(model.denoiser.network, config)
    return (
        model.denoiser,
        state,
        Feed(dataset, model.codec, dataset.train_indices, config.seed, config.batch or 1, drop=config.dropout),
    )


def bare(config: TrainConfig, dataset: Dataset) -> Callable[[int], float]:
    """Seconds of so many steps: forward, backward, clip, AdamW, one average."""
    denoiser, state, feed = start(config, dataset)
    weight, batch, schedule = build(dict(config.weight or {}), Weight), feed.at(0), denoiser.process.schedule
    network, average = state.network, next(iter(state.averages.values()))
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.99), weight_decay=0, fused=True)
    t, _ = state.law(batch.u, schedule)
    denoiser.train()
    done = 0

    def run(steps: int) -> float:
        nonlocal done
        begun = time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
                loss = denoising_loss(denoiser, batch.x0, t, torch.randn_like, weight, cond=batch.cond).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
            ema.update(average.values(), parameters, done, 0.05)
        return time.perf_counter() - begun

    return run


def ours(config: TrainConfig, dataset: Dataset) -> Callable[[int], float]:
    """Seconds of so many steps of `fit`."""
    denoiser, state, feed = start(config, dataset)
    state.step = 2500  # averages move at every fourth step here: about the mean of a run of ten minutes
    steps = fit(denoiser, feed, config, state)

    def run(count: int) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            next(steps)
        return time.perf_counter() - begun

    return run


def whole(path: str, minutes: float, runs: Path) -> None:
    """Of a real run, from its first step to its last: seconds inside steps and outside."""
    from langevin.recipes import session
    from langevin.recipes.console import Console
    from langevin.recipes.train import train

    spent = {"inside": 0.0, "outside": 0.0, "steps": 0.0}

    def timed(*arguments: Any, **settings: Any) -> Iterator[Any]:
        steps, left = fit(*arguments, **settings), None
        while True:
            begun = time.perf_counter()
            metrics = next(steps, None)
            if metrics is None:
                return
            now = time.perf_counter()
            spent["inside"] += now - begun
            spent["outside"] += 0.0 if left is None else begun - left
            spent["steps"] += 1
            left = now
            yield metrics

    session.fit = timed  # type: ignore[assignment]
    there = Path(path).absolute() if Path(path).exists() else path
    train(there, minutes=minutes, runs=runs, console=Console("quiet"))
    share = spent["outside"] / (spent["inside"] + spent["outside"])
    print(
        f"\nA run of {minutes:g} min: {spent['steps']:,.0f} steps, {spent['inside']:.1f} s inside them, "
        f"{spent['outside']:.1f} s outside ({share:.2%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--runs", type=Path, help="where that run is kept")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    dataset = data.open(given.data)
    config = plan.resolve(parse({"data": {"path": given.data}, "steps": 10**6}), dataset)
    sides = {"bare loop": bare(config, dataset), "fit": ours(config, dataset)}
    for run in sides.values():
        run(10)
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(given.rounds):
        for name in list(sides)[:: 1 if k % 2 else -1]:
            seen[name].append(sides[name](given.steps) / given.steps)
    base = statistics.median(seen["bare loop"])
    print(f"| {given.data}, batch {config.batch}, {config.precision} | ms/step | over the bare loop |\n|---|---|---|")
    for name, times in seen.items():
        ratios = sorted(a / b for a, b in zip(times, seen["bare loop"], strict=True))
        middle = statistics.median(times)
        print(f"| {name} | {1e3 * middle:.3f} | {middle / base:.4f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) |")
    if given.minutes:
        with tempfile.TemporaryDirectory() as folder:
            whole(given.data, given.minutes, given.runs or Path(folder))


if __name__ == "__main__":
    main()

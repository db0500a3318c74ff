"""What a picture costs: by its side, by the network's width, by the batch; and what opening a folder of pictures costs.

    python benchmarks/scaling.py [--sides 16 32 64 128 256] [--threads 2] [--seconds 6]

For every side the network is the default one for 60,000 colour pictures. A training step is the recipe's own (`fit`: keyed noise,
products in the precision that the plan chooses, clipping, fused AdamW, averages, checks); an evaluation is what a sampler's step asks
of the network, in float32. Medians over so many seconds each. GFLOP are those of torch.utils.flop_counter, forward and backward. The
last lines give the exponents: seconds as a power of pixels, and of parameters, least squares on logarithms. Opening is `data.open` on
a folder of PNG files of noise and ramps, first time (decoded and cached) and second time. Prints markdown.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from langevin import data
from langevin.config import parse
from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.weights import Weight
from langevin.networks import default_size, keep_memory
from langevin.recipes import plan
from langevin.registry import build
from langevin.training import TrainState, fit
from langevin.training.distributed import ALONE

COUNT = 60_000
"""Pictures that the default network is chosen for."""


def median(work: Callable[[], object], seconds: float) -> float:
    for _ in range(2):
        work()
    took, end = [], time.perf_counter() + seconds
    while len(took) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def measure(folder: Path, side: int, batch: int, scale: float, seconds: float) -> dict[str, float]:
    """Of one network: parameters, GFLOP, seconds and evaluations, all a picture."""
    path = folder / f"{side}-{batch}.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(0).integers(0, 256, (2 * batch, side, side, 3), np.uint8))
    dataset = data.open(path)
    network = {"name": "unet", **default_size((3, side, side), COUNT, scale)}
    config = plan.resolve(
        parse({"data": {"path": str(path)}, "steps": 10**6, "batch": batch, "network": network}), dataset
    )
    model = plan.make(config, dataset)
    state = TrainState.start(model.denoiser.network, config)
    feed = plan.feed(config, dataset, model.codec, state, ALONE)
    one, weight = feed.at(0), build(dict(config.weight or {}), Weight)
    with FlopCounterMode(display=False) as counter:
        denoising_loss(model.denoiser, one.x0, one.u, torch.randn_like, weight).mean().backward()
    state.optimizer.zero_grad()
    steps = fit(model.denoiser, feed, config, state)
    step = median(lambda: next(steps), seconds)
    with torch.no_grad():
        evaluation = median(lambda: model.denoiser.eval()(one.x0, torch.tensor(0.5, dtype=torch.float64)), seconds / 2)
    return {
        "patch": network["patch"],
        "widths": "/".join(map(str, network["widths"])),
        "parameters": sum(p.numel() for p in model.denoiser.parameters()) / 1e6,
        "gflop": counter.get_total_flops() / batch / 1e9,
        "step": 1e3 * step / batch,
        "evaluation": 1e3 * evaluation / batch,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "precision": config.precision,
    }


def power(x: list[float], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def opening(folder: Path, side: int, count: int) -> tuple[float, float]:
    """Seconds a picture, the first time and the second."""
    there = folder / f"png-{side}"
    there.mkdir()
    rng, ramp = np.random.default_rng(1), np.linspace(0, 200, side)[:, None, None]
    for k in range(count):
        Image.fromarray((ramp + rng.integers(0, 56, (side, side, 3))).astype(np.uint8)).save(there / f"{k}.png")
    took = []
    for _ in range(2):
        begun = time.perf_counter()
        data.open(there)
        took.append((time.perf_counter() - begun) / count)
    return took[0], took[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    titles = "patch | widths | parameters | GFLOP | training, ms | evaluation, ms | GFLOP/s"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["LANGEVIN_CACHE"] = str(folder / "cache")

        def row(first: str, side: int, batch: int, scale: float) -> dict[str, float]:
            r = measure(folder, side, batch, scale, given.seconds)
            cells = f"{r['patch']} | {r['widths']} | {r['parameters']:.2f} M | {r['gflop']:.3f} | {r['step']:.2f}"
            rate = r["gflop"] / (r["step"] / 1e3)
            print(f"| {first} | {cells} | {r['evaluation']:.2f} | {rate:.0f} |", flush=True)
            return r

        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; all a picture\n")
        print(f"| side | {titles} |\n{'|---' * 8}|")
        sides = [row(str(side), side, 32 if side <= 64 else 8, 1.0) for side in given.sides]
        print(f"\n| 32 x 32, width times | {titles} |\n{'|---' * 8}|")
        scales = [row(f"{scale:g}", 32, 32, scale) for scale in (0.5, 1.0, 2.0, 3.0)]
        print(f"\n| 32 x 32, batch | {titles} |\n{'|---' * 8}|")
        for batch in (4, 8, 16, 32, 64, 128):
            row(str(batch), 32, batch, 1.0)
        pixels = [float(side * side) for side in given.sides]
        for what in ("step", "evaluation"):
            a = power(pixels, [r[what] for r in sides])
            b = power([r["parameters"] for r in scales], [r[what] for r in scales])
            print(f"\n{what}: pixels^{a:.2f}, parameters^{b:.2f}")
        print("\n| PNG, side | first time, ms | second time, ms |\n|---|---|---|")
        for side in given.sides:
            first, second = opening(folder, side, 500 if side <= 64 else 100)
            print(f"| {side} | {1e3 * first:.3f} | {1e3 * second:.4f} |", flush=True)


if __name__ == "__main__":
    main()

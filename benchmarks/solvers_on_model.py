"""Solvers of all sides on one trained network: distance to the fine solution, and the yardstick's figures.

    python benchmarks/solvers_on_model.py RUN [--samples 64] [--evaluations 4 5 6 8 10 15 20] [--threads 2] [--device cuda]
    python benchmarks/solvers_on_model.py RUN --quality FOLDER_OF_quality.py [--cases default tuned "k-diffusion dpmpp_2m karras"]

The network is asked through DDPM's linear schedule by everybody, from the same noise and with the same labels; the fine
solution is the classical Runge-Kutta method's in 400 evaluations. A distance is root mean square over the spread of the fine
solution's values. Peers as in error_vs_evaluations.py. "tuned" is what `langevin tune` left in the model, where it did.
Prints markdown.
"""

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import error_vs_evaluations as exactly
from langevin import load, registry
from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion, Rescheduled
from langevin.diffusion.denoiser import device_of
from langevin.model import Model
from langevin.rng import brownian, keyed
from langevin.solvers import Grid, Solver, trajectory
from langevin.solvers.base import levels


class Flat(Denoiser):
    """A model's denoiser on vectors of double precision, with its labels at hand; the network alone is on its device."""

    def __init__(self, model: Model, labels: np.ndarray | None) -> None:
        super().__init__()
        self.process, self.shape = GaussianDiffusion(exactly.SCHEDULE), model.shape
        self.denoiser = Rescheduled(model.denoiser, exactly.SCHEDULE)
        self.place = device_of(model.denoiser)
        self.cond = None if labels is None else {"label": torch.from_numpy(labels).to(self.place)}

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
        q = self.denoiser(x_t.float().unflatten(1, self.shape).to(self.place), t, self.cond)
        return Gaussian(q.mean.flatten(1).double().to(x_t.device))


def tuned(model: Model, denoiser: Flat, x: Tensor) -> Iterator[tuple[str, exactly.Run]]:
    """Times are moved to the other schedule at equal sigma / alpha."""

    def run(num: int) -> Tensor:
        own = model.tuned(num)
        if own is None:
            raise ValueError("not tuned for so many")
        solver, grid = registry.build(own["solver"], Solver), registry.build(own["grid"], Grid)
        base = model.denoiser.process.schedule
        times = grid(base, num)
        times[1:-1] = exactly.SCHEDULE.inverse(base.log_snr(times[1:-1]))
        *_, step = trajectory(denoiser, solver, x, times)
        return step.x

    yield "tuned", run


def start(model: Model, seeds: range) -> tuple[Flat, Tensor]:
    noise = keyed(seeds)(0)(torch.empty(len(seeds), int(np.prod(model.shape)), dtype=torch.float64))
    return Flat(model, model.labels(seeds)), noise


def stochastic(denoiser: Flat, x: Tensor, seeds: range) -> Iterator[tuple[str, exactly.Run]]:
    """Solvers that draw noise: of those there is quality, and no distance to a solution."""

    def run(solver: Solver[Any], grid: Grid, num: int) -> Tensor:
        if num % solver.evaluations:
            raise ValueError("so many evaluations do not make whole steps")
        times = grid(exactly.SCHEDULE, num // solver.evaluations)
        noise = brownian(seeds, [at.lam for at in levels(exactly.SCHEDULE, times)])
        *_, step = trajectory(denoiser, solver, x, times, noise=noise)
        return step.x

    for name, solver in exactly.registered().items():
        if solver.stochastic and solver.evaluations and not getattr(solver, "few_step", False):
            for grid_name, grid in exactly.GRIDS.items():
                yield f"{name} {grid_name}", lambda num, s=solver, g=grid: run(s, g, num)


def cases(model: Model, denoiser: Flat, x: Tensor) -> Iterator[tuple[str, exactly.Run]]:
    yield from tuned(model, denoiser, x)
    for side in (exactly.ours, exactly.diffusers_peers, exactly.k_diffusion_peers, exactly.azula_peers):
        yield from side(denoiser, x)


def distances(model: Model, samples: int, evaluations: list[int]) -> None:
    denoiser, x = start(model, range(samples))
    truth = exactly.exact(denoiser, x, 100)
    spread = (truth - truth.mean(0)).square().mean().sqrt()
    print(f"| solver | {' | '.join(map(str, evaluations))} |\n|---|{'---|' * len(evaluations)}")
    for name, run in cases(model, denoiser, x):
        row = []
        for num in evaluations:
            try:
                far = ((run(num).double().reshape(truth.shape) - truth).square().mean().sqrt() / spread).item()
                row.append(f"{far:.4f}")
            except (ValueError, RuntimeError, IndexError, ArithmeticError):
                row.append("")
        print(f"| {name} | {' | '.join(row)} |", flush=True)


def quality(model: Model, folder: Path, wanted: list[str], samples: int, evaluations: list[int]) -> None:
    sys.path.insert(0, str(folder))
    score: Callable[..., dict[str, float]] = importlib.import_module("quality").score
    for name in wanted:
        for num in evaluations:
            images, labels = [], []
            for first in range(0, samples, 250):
                seeds = range(first, min(first + 250, samples))
                denoiser, x = start(model, seeds)
                run = {**dict(cases(model, denoiser, x)), **dict(stochastic(denoiser, x, seeds))}[name]
                try:
                    z = run(num).float().reshape(len(x), *model.shape)
                except (ValueError, RuntimeError, IndexError, ArithmeticError):
                    break
                images.append(model.codec.decode(z).numpy())
                labels.append(model.labels(seeds))
            else:
                found = score(np.concatenate(images)[..., 0], np.concatenate(labels))
                print(f"| {name} | {num} | {json.dumps(found)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[4, 5, 6, 8, 10, 15, 20])
    parser.add_argument("--quality", type=Path)
    parser.add_argument("--cases", nargs="+", default=["default", "tuned"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of the network; everything else is on the CPU")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads)
    model = load(given.run).to(given.device)
    model.denoiser.eval()
    if given.quality:
        quality(model, given.quality, given.cases, given.samples or 2000, given.evaluations)
    else:
        distances(model, given.samples or 64, given.evaluations)


if __name__ == "__main__":
    with torch.no_grad():
        main()

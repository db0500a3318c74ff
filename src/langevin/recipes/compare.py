"""`langevin sample --compare`: solvers beside each other from the same seeds, with their time and how far they are from done."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from langevin import store
from langevin.errors import UsageError
from langevin.evaluation.sheets import comparison
from langevin.model import Model
from langevin.recipes.plan import device, ready
from langevin.solvers import sample
from langevin.solvers.base import Solver
from langevin.words import counted

SOLVERS = ("ddim", "dpmpp", "unipc", "deis", "adams", "heun", "ancestral")
EVALUATIONS = (4, 6, 8, 12, 20)
FINE = 200
"""Evaluations of the solution that others are measured by, and the most that can be compared."""
SHOWN, MOST = 4, 1024
"""Samples of a cell that the sheet shows, and the most that can be measured."""
OWN = "(its own)"
"""The row of what `langevin sample --steps` takes where no solver is named."""


@dataclass(frozen=True)
class Cell:
    """A solver with so many evaluations. distance: root mean square to the fine solution over the spread of that one."""

    solver: str
    evaluations: int
    items: np.ndarray
    distance: float
    seconds: float


def compare(
    run: Path,
    *,
    n: int = 16,
    seed: int = 0,
    label: "Sequence[str] | None" = None,
    solvers: Sequence[str] = (),
    evaluations: Sequence[int] = (),
    grid: "str | None" = None,
    out: "Path | None" = None,
    say: Callable[[str], None] = print,
    guidance: Any = None,
    guidance_interval: "Sequence[float] | None" = None,
    guidance_rescale: "float | None" = None,
    negative_label: "int | str | None" = None,
) -> tuple[Path, list[Cell]]:
    """Sample with each solver at each number of evaluations, from the same starts: a labelled sheet and a table.

    The fine solution is the probability flow's in 200 evaluations; for a solver that draws noise it is its own in as many,
    along the same paths of noise. A solver that needs several evaluations a step takes fewer steps.

    Args:
        n: samples that are measured; the sheet shows the first four.
        solvers, evaluations: names and numbers; a chosen few where none is given. What the model does by itself comes first.
        guidance, guidance_interval, guidance_rescale, negative_label: as for `Model.sample`.

    Returns:
        the sheet's path, and the cells row by row.

    Raises:
        UsageError: an unknown name, a number out of range, a path that is taken.
    """
    target = out or store.free_path(Path("comparison.png"))
    store.refuse_taken(target)
    if target.suffix.lower() != ".png":
        raise UsageError("a comparison is one sheet", where=str(target), help="--out comparison.png")
    counts = sorted({int(e) for e in evaluations or EVALUATIONS})
    if not 1 <= counts[0] <= counts[-1] <= FINE:
        raise UsageError(f"evaluations must lie between 1 and {FINE}, not {counts}")
    if not 1 <= n <= MOST:
        raise UsageError(f"1 to {MOST:,} samples can be compared, not {n:,}")
    model = ready(run)
    seeds = range(seed, seed + n)
    labels = model.labels(seeds, [label[k % len(label)] for k in range(n)] if label else None)
    denoiser, calls = model.guided(guidance, guidance_interval, guidance_rescale, negative_label), _counted(model)
    cond = None if labels is None else {"label": torch.from_numpy(labels).to(device())}

    rows: list[str | None] = [None, *(solvers or SOLVERS)]
    kinds: dict[str | None, Solver[Any]] = {name: model.solver(name) for name in rows}  # unknown names are told first

    def draw(name: "str | None", budget: int) -> tuple[Tensor, float, int]:
        per_step = max(1, kinds[name].evaluations)
        steps, solver, visits = model.method(max(1, budget // per_step), name, grid)
        times = visits(model.denoiser.process.schedule, steps)
        calls.clear()
        start = time.perf_counter()
        z = sample(denoiser, solver, model.shape, times, seeds=seeds, cond=cond)
        return z, time.perf_counter() - start, len(calls)

    flow = draw(None, FINE)[0]
    cells: list[Cell] = []
    pictures, captions = [], []
    for name in rows:
        fine = draw(name, FINE)[0] if kinds[name].stochastic else flow
        spread = (fine - fine.mean(0)).square().mean().sqrt() if n > 1 else fine.square().mean().sqrt()
        for count in counts:
            z, seconds, took = draw(name, count)
            distance = ((z - fine).square().mean().sqrt() / spread).item()
            cells.append(Cell(name or OWN, took, _decoded(model, z), distance, seconds))
            pictures.append(cells[-1].items)
            captions.append(f"{distance:.3f}  {seconds:.2f} s")
        pictures.append(_decoded(model, fine))
        captions.append("")
    names = [name or OWN for name in rows]
    columns = [*(counted(count, "evaluation") for count in counts), "fine"]
    comparison(pictures, names, columns, captions).save(target)
    say(_table(cells, names, counts))
    say(f"made       {target}: distance to the fine solution over its spread, and seconds for {counted(n, 'sample')}")
    return target, cells


def _counted(model: Model) -> list[int]:
    """A list that grows by one with each evaluation of the network."""
    calls: list[int] = []

    def count(module: nn.Module, *_: Any) -> None:
        calls.append(1)

    model.denoiser.register_forward_pre_hook(count)
    return calls


def _decoded(model: Model, z: Tensor) -> np.ndarray:
    items = model.codec.decode(z[:SHOWN]).cpu().numpy()
    return items if items.ndim == 4 else items[..., None]


def _table(cells: Sequence[Cell], names: Sequence[str], counts: Sequence[int]) -> str:
    wide = max(len(name) for name in names)
    lines = [f"{'':{wide}}" + "".join(f"{count:>16}" for count in counts)]
    for k, name in enumerate(names):
        row = cells[k * len(counts) : (k + 1) * len(counts)]
        lines.append(f"{name:{wide}}" + "".join(f"{c.distance:9.4f}{c.seconds:5.2f} s" for c in row))
    return "\n".join(lines)

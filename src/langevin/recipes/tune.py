"""`langevin tune`: the steps of a trained model, fitted to it; kept in its folder and used by `langevin sample` from then on."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from langevin.distillation.steps import Tuned, tune_steps
from langevin.errors import UsageError
from langevin.model import Model, locate
from langevin.recipes import settings
from langevin.recipes.console import Console
from langevin.recipes.plan import ready
from langevin.recipes.signals import StoppedError, at_each_evaluation, stop_requests
from langevin.registry import describe
from langevin.rng import keyed

FIRST_SEED = 1 << 40
"""Tuning draws its own starts, not those that samples are likely to have."""
MOST, FINE = 50, 100


def tune(
    run: Path,
    *,
    steps: Sequence[int] = (6,),
    seeds: int = 128,
    batch: int = 64,
    console: Console | None = None,
) -> dict[int, Tuned]:
    """Tune a model's steps and write them into its folder.

    Args:
        run: a finished run or a model folder.
        steps: numbers of steps, each tuned by itself.
        seeds: starts; half of them are held out. Labels are drawn as frequent as in the data, guidance is the model's own.

    Raises:
        UsageError: numbers out of range, or a run that has not finished.
    """
    folder = locate(run)
    if folder.parent.name == "checkpoints":
        raise UsageError("this run has not finished", where=str(run), help=f"langevin train --resume {run}")
    if not steps or not all(1 <= n <= MOST for n in steps):
        raise UsageError(f"steps are tuned for 1 to {MOST}, not {', '.join(map(str, steps)) or 'none'}")
    if not 8 <= seeds <= 100_000:
        raise UsageError(f"tuning takes 8 to 100,000 seeds, not {seeds:,}")
    console = console or Console("auto")
    model, found, wanted = ready(folder), dict[int, Tuned](), list(dict.fromkeys(steps))
    with stop_requests() as stop:
        at_each_evaluation(model.denoiser, lambda: stop.heed("stopped"))
        for n in wanted:
            try:
                one = _tune(model, n, seeds, batch, _telling(console, n))
            except StoppedError:  # what was found by then is kept
                break
            finally:
                console.done()
            found[n] = one
            of = f"{seeds - seeds // 2} held-out seeds, distance to {FINE} steps over the spread"
            change = "kept" if one.error == one.default_error else "tuned" if one.gained else "built in"
            console.say(f"{n:>3} steps  {one.default_error:.4f} -> {one.error:.4f}, {change}: {_named(one)}   ({of})")
        better = {n: one for n, one in found.items() if one.error < one.default_error}
        if better:
            rows = _rows(better, seeds)
            settings.keep(folder, lambda own: {**own, "tuned": {**(own.get("tuned") or {}), **rows}})
            console.say(
                f"made       {folder / 'config.json'}: `sampling.tuned` for {', '.join(map(str, sorted(better)))} steps"
            )
        if left := " ".join(f"--steps {n}" for n in wanted if n not in found):
            again = f"langevin tune {shlex.quote(str(run))} {left} --seeds {seeds}"
            stop.heed(f"stopped while tuning, {len(found)} of {len(wanted)} done and kept", help=again)
    console.say(f"next       langevin sample {run} --steps {min(better or found)}")
    return found


def _telling(console: Console, num_steps: int) -> Callable[[float], None]:
    return lambda share: console.progress("tuning", share, f"{num_steps} steps")


def _named(one: Tuned) -> str:
    return f"{describe(one.solver)['name']} on {describe(one.grid)['name']}"


def _tune(model: Model, num_steps: int, seeds: int, batch: int, progress: Callable[[float], None]) -> Tuned:
    mine, place = range(FIRST_SEED, FIRST_SEED + seeds), next(model.denoiser.parameters()).device
    x = model.denoiser.process.prior((seeds, *model.shape), keyed(mine)(0), dtype=torch.float32, device=place)
    labels = model.labels(mine)
    _, solver, grid = model.method(num_steps)
    return tune_steps(
        model.guided(),
        x,
        num_steps,
        cond=None if labels is None else {"label": torch.from_numpy(labels).to(place)},
        kept=(solver, grid) if solver.evaluations == 1 and not solver.stochastic else None,
        fine=FINE,
        batch=batch,
        progress=progress,
    )


def _rows(found: dict[int, Tuned], seeds: int) -> dict[str, Any]:
    """What was found, as config.json says it."""
    return {
        str(n): {
            "solver": describe(one.solver),
            "grid": describe(one.grid),
            "error": one.error,
            "default_error": one.default_error,
            "seeds": seeds,
        }
        for n, one in found.items()
    }

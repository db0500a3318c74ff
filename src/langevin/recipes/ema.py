"""`langevin ema`: an average of any width after the run, as a model folder; or all of them compared, and the best taken.

runs/NAME-k/ema-0.08/   config.json  model.safetensors  README.md  manifest.json
"""

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from langevin import store
from langevin.config import TrainConfig
from langevin.data.dataset import Dataset
from langevin.errors import UsageError
from langevin.model import Model, load
from langevin.recipes import averages, folders
from langevin.recipes.averages import Average, Measured
from langevin.recipes.console import Console
from langevin.recipes.reopen import reopen
from langevin.recipes.session import Session
from langevin.recipes.signals import StopRequest
from langevin.training import checkpoint, kept, snapshots


def ema(
    run: "str | Path",
    *,
    sigma_rel: float | None = None,
    step: int | None = None,
    publish: bool = False,
    console: Console | None = None,
) -> Path:
    """Make a model with an average of another width than those that were tracked.

    Args:
        run: its folder.
        sigma_rel: the width, a share of the run in (0, 0.28). Where it is not given, widths are measured on the run's held-out
            data, and the best is made.
        step: of which the average is; the last one with a snapshot where it is not given. Only with `sigma_rel`.
        publish: make it the run's model; the former one is kept beside it.

    Returns:
        the model folder; the run's own where that has the best average already.

    Raises:
        UsageError: nothing to make it from, a width or step that the snapshots do not reach, or a folder that is there
            already. DataError: other data than the run's.
    """
    run, console = folders.found(Path(run), "config.yaml", "such run"), console or Console()
    if sigma_rel is None and step is not None:
        raise UsageError("a step is given and no width", help="add --sigma-rel, such as 0.08")
    if sigma_rel is not None and not 0.001 < sigma_rel < 0.28:
        raise UsageError(f"the width must lie between 0.001 and 0.28, not {sigma_rel:g}")
    name = None if sigma_rel is None else f"ema-{sigma_rel:g}" + ("" if step is None else f"-step-{step}")
    if name is not None and not publish:
        store.refuse_taken(run / name)
    with console:
        if sigma_rel is None:
            found = _scan(run, console)
            chosen, loss = found.average, found.level.mean
            if load(run).about.get("average") == str(chosen):
                console.say(f"model      {run / 'model'} has the best of them: {chosen}")
                return run / "model"
            if not publish:
                store.refuse_taken(run / f"ema-{chosen.sigma_rel:g}")
        else:
            chosen, loss = _rebuilt(run, sigma_rel, step, console), None
        model = _wearing(load(run), chosen, step, loss)
        target = _publish(run, model, console) if publish else model.save(run / (name or f"ema-{chosen.sigma_rel:g}"))
        console.say(f"made       {target}: average of {chosen}")
        console.say(f"next       langevin sample {shlex.quote(str(run if publish else target))} -n 64")
    return target


def _rebuilt(run: Path, sigma_rel: float, step: int | None, console: Console) -> Average:
    like = dict(load(run).denoiser.network.named_parameters())
    there: Sequence[snapshots.Stored] = snapshots.sound(run, like, console.say)
    name, none = "snapshots", not there
    if none:
        there, name = kept.sound(run, like, console.say), "checkpoints"
        console.say(
            "note       the run kept no snapshots (its setting `snapshots`): the averages in its checkpoints must do"
        )
    (one,) = snapshots.rebuild(there, [sigma_rel], like, step=step)
    console.say(
        f"{name}  {len(there)} from step {there[0].step:,} to {there[-1].step:,}; the profile of {sigma_rel:g} at step "
        f"{one.profile.step:,} is met within {one.error:.1%} of its norm"
    )
    if one.error > averages.WORST:
        steps = ", ".join(str(s.step) for s in there)
        tracked = ", ".join(f"{s:g}" for s in there[-1].widths)
        raise UsageError(
            f"the {name} do not reach a width of {sigma_rel:g} at step {one.profile.step:,}",
            where=str(run / ("checkpoints" if none else "ema")),
            help=f"widths near {tracked} at one of the steps {steps}; a run with `snapshots` over 0 keeps what others are made from"
            if none
            else f"widths from 0.03 to 0.2 at one of the steps {steps}",
        )
    return Average("rebuilt", sigma_rel, one.tensors, one.error)


def _scan(run: Path, console: Console) -> Measured:
    """The best of all widths on held-out data."""
    if not (run / "figures.json").is_file():
        raise UsageError(
            "widths are compared when a run has finished",
            where=str(run),
            help=f"langevin train --resume {shlex.quote(str(run))}; or give one with --sigma-rel",
        )
    session = at_its_end(run, *reopen(run), console)
    tried = [s for s in averages.WIDTHS if s not in session.state.averages]
    if not snapshots.folders(run):
        console.say("note       the run kept no snapshots (its setting `snapshots`): only what it tracked is compared")
    every = averages.candidates(run, session.state, tried, console.say)
    found = averages.measured(every, session.loss)
    console.say(averages.table(found))
    return averages.best(found)


def at_its_end(run: Path, config: TrainConfig, dataset: Dataset, console: Console) -> Session:
    """A finished run as it ended, to measure weights with. Raises UsageError where no checkpoint is left."""
    session = Session(run, config, dataset, console, StopRequest(), time.perf_counter())
    last = checkpoint.newest(run, console.say)
    if last is None:
        raise UsageError("the run has no checkpoint left to compare with", where=str(run), help="give --sigma-rel")
    checkpoint.restore(last, session.model, session.state)
    return session


def _wearing(model: Model, average: Average, step: int | None, loss: float | None) -> Model:
    """The model with these weights; what was found of its former ones is not said of them."""
    with torch.no_grad():
        for name, parameter in model.denoiser.network.named_parameters():
            parameter.copy_(average.tensors[name])
    about = {k: v for k, v in model.about.items() if k not in ("held-out loss", "figures", "average")}
    about["average"] = f"{average}" + ("" if step is None else f" at step {step:,}")
    if loss is not None:
        about["held-out loss"] = round(loss, 5)
    sampling = {k: v for k, v in model.sampling.items() if k != "tuned"}
    raw = average.raw or (model.raw if step is None else None)
    return dataclasses.replace(model, about=about, sampling=sampling, raw=raw, digest="")


def _publish(run: Path, model: Model, console: Console) -> Path:
    """Make it the run's model: written whole beside it, then the two change places."""
    target, new = run / "model", store.free_path(run / "model-new")
    model.save(new)
    if target.exists():
        former = store.free_path(target)
        target.rename(former)
        console.say(f"former     {former}")
    new.rename(target)
    store.flush(run)
    return target

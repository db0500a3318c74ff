"""Commands that train: a model, many to find the best of, a classifier beside one, an average of its weights."""

import time
from pathlib import Path
from typing import Literal

from langevin.cli.options import Names, Switch, console, settings


def demo(*, seed: int = 0, minutes: float = 1.0, json: Switch = False) -> None:
    """Train on scikit-learn's handwritten digits, by digit, and show what comes out; under 90 s on two cores.

    Args:
        seed: of everything random.
        minutes: budget of the training.
        json: one JSON object a line.
    """
    from langevin.recipes.demo import demo as run

    run(minutes=minutes, seed=seed, console=console(json))


def train(
    path: str | None = None,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    size: int | None = None,
    out: str | None = None,
    seed: int | None = None,
    resume: Path | None = None,
    accept_changed_data: Switch = False,
    parallel: Literal["ddp", "fsdp"] | None = None,
    init: str | None = None,
    init_partial: Switch = False,
    freeze: Names = None,
    config: Path | None = None,
    set: Names = None,
    fit: Literal["crop", "pad", "skip"] | None = None,
    matte: str | None = None,
    frames: Literal["first", "all"] | None = None,
    allow_rejects: float | None = None,
    flip: Switch = False,
    track: Names = None,
    json: Switch = False,
) -> None:
    """Train a model on your own pictures.

    Args:
        path: a folder of pictures (sub-folders are classes), a folder with metadata.csv or .jsonl, a zip, .npz, .npy, an idx
            file or folder, or `digits`.
        minutes: wall-clock budget; 10 where neither it nor --steps is given.
        steps: number of steps instead of minutes.
        size: side of the pictures; chosen from the data.
        out: name of the run: its folder is runs/NAME-1, or the next number that is free.
        seed: of everything random.
        resume: a run's folder, to go on with it; nothing else is needed. With more --minutes or --steps, of the whole run, it
            trains longer; --set micro_batch, batch and sampling may change too.
        parallel: under torchrun: copies of the weights in each process (ddp, the default) or shards of them (fsdp).
        accept_changed_data: with --resume: go on though the data have changed, with an epoch of the new ones.
        init: a run, a model or a .safetensors file whose weights are the first ones; RUN:raw for those that are no average.
        init_partial: what does not fit there may start fresh.
        freeze: parameters that are not trained, by pattern of their names, such as 'down.*'; may be repeated.
        config: a YAML file of settings.
        set: one setting, such as optimizer.lr=1e-3; may be repeated.
        fit: how pictures of another shape are made to fit.
        matte: a colour to lay under transparent pictures, such as white; transparency is kept without one.
        frames: which frames of animations.
        allow_rejects: share of unusable files that is let pass.
        flip: mirror pictures at random; only where left and right do not matter.
        track: a tracker of the run's course, tensorboard or wandb; may be repeated.
        json: one JSON object a line.
    """
    began = time.perf_counter()  # what is imported now counts too
    from langevin.recipes.train import train as run

    run(
        path,
        minutes=minutes,
        steps=steps,
        size=size,
        out=out,
        seed=seed,
        config=config,
        settings=settings(set),
        started=began,
        resume=resume,
        accept_changed_data=accept_changed_data,
        parallel=parallel,
        init=init,
        init_partial=init_partial,
        freeze=freeze or (),
        track=track,
        console=console(json),
        fit=fit,
        matte=matte,
        frames=frames,
        allow_rejects=allow_rejects,
        flip=flip or None,
    )


def classifier(
    run: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    json: Switch = False,
) -> None:
    """Train a classifier of noisy samples on a run's own data, to guide its model by.

    Args:
        run: a run with labels; the classifier is written into its folder.
        minutes: wall-clock budget; 1 where neither it nor --steps is given.
        steps: number of steps instead of minutes.
        seed: of everything random.
        json: one JSON object a line.
    """
    from langevin.recipes.classifier import train_classifier

    train_classifier(run, minutes=minutes, steps=steps, seed=seed, console=console(json))


def search(
    path: str | None = None,
    *,
    trials: int | None = None,
    minutes_per_trial: float | None = None,
    steps_per_trial: int | None = None,
    space: Path | None = None,
    confirm: Switch = False,
    out: str | None = None,
    size: int | None = None,
    seed: int | None = None,
    resume: Path | None = None,
    config: Path | None = None,
    set: Names = None,
    json: Switch = False,
) -> None:
    """Look for a better recipe than the default one, in many short runs on your own data.

    Args:
        path: as for `langevin train`.
        trials: how many runs in all; 20 where it is not given.
        minutes_per_trial: wall clock of each; 5 where neither it nor --steps-per-trial is given.
        steps_per_trial: number of steps of each instead.
        space: a YAML file that says what may change; a small space around the recipe where it is not given.
        confirm: run the best and the default recipe with two more seeds, and say whether the gap is more than noise.
        out: name of the search: its folder is searches/NAME-1, or the next number that is free.
        size: side of the pictures; chosen from the data.
        seed: of everything random.
        resume: a search's folder, to go on with it, or to take part in it from another process.
        config: a YAML file of the recipe to begin with.
        set: one setting of that recipe, such as optimizer.name=muon; may be repeated.
        json: one JSON object a line.
    """
    from langevin.recipes.search import search as run

    run(
        path,
        trials=trials,
        minutes_per_trial=minutes_per_trial,
        steps_per_trial=steps_per_trial,
        space=space,
        confirm=confirm,
        out=out,
        size=size,
        seed=seed,
        config=config,
        settings=settings(set),
        resume=resume,
        console=console(json),
    )


def ema(
    run: Path,
    *,
    sigma_rel: float | None = None,
    step: int | None = None,
    publish: Switch = False,
    json: Switch = False,
) -> None:
    """Make a model with an average of the weights of any width, after the run; without a width, the best on held-out data.

    Args:
        run: a run's folder; the model is written into it, as ema-WIDTH.
        sigma_rel: the width as a share of the run, such as 0.08; widths are compared on held-out data where it is not given.
        step: of which the average is; the last one where it is not given.
        publish: make it the run's model; the former one is kept beside it.
        json: one JSON object a line.
    """
    from langevin.recipes.ema import ema as average

    average(run, sigma_rel=sigma_rel, step=step, publish=publish, console=console(json))

"""Commands, and how their errors are told. Each command is thin: it calls a recipe and ends with the next command."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from langevin import __version__
from langevin.disk import REMEDIES
from langevin.errors import LangevinError, UsageError

DEBUG = "--debug"

app = App(
    name="langevin",
    help="Diffusion models on your own data: from a folder to a trained, measured, few-step model.",
    version=__version__,
    help_epilogue="Start with: langevin demo    then: langevin train FOLDER --minutes 10",
)
data = App(name="data", help="Look at data before training.")
app.command(data)

Switch = Parameter(negative=())


@app.command
def demo(*, seed: int = 0, minutes: float = 1.0, json: Annotated[bool, Switch] = False) -> None:
    """Train on scikit-learn's handwritten digits, by digit, and show what comes out; under 90 s on two cores.

    Args:
        seed: of everything random.
        minutes: budget of the training.
        json: one JSON object a line.
    """
    from langevin.recipes.console import Console
    from langevin.recipes.demo import demo as run

    run(minutes=minutes, seed=seed, console=Console("json" if json else "auto"))


@app.command
def train(
    path: str | None = None,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    size: int | None = None,
    out: str | None = None,
    seed: int | None = None,
    resume: Path | None = None,
    accept_changed_data: Annotated[bool, Switch] = False,
    parallel: Literal["ddp", "fsdp"] | None = None,
    init: str | None = None,
    init_partial: Annotated[bool, Switch] = False,
    freeze: Annotated[list[str] | None, Parameter(negative=())] = None,
    config: Path | None = None,
    set: Annotated[list[str] | None, Parameter(negative=())] = None,
    fit: Literal["crop", "pad", "skip"] | None = None,
    matte: str | None = None,
    frames: Literal["first", "all"] | None = None,
    allow_rejects: float | None = None,
    flip: Annotated[bool, Switch] = False,
    track: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: Annotated[bool, Switch] = False,
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
    from langevin.recipes.console import Console
    from langevin.recipes.train import train as run

    settings = dict(_setting(text) for text in set or [])
    options = {"fit": fit, "matte": matte, "frames": frames, "allow_rejects": allow_rejects, "flip": flip or None}
    run(
        path,
        minutes=minutes,
        steps=steps,
        size=size,
        out=out,
        seed=seed,
        config=config,
        settings=settings,
        resume=resume,
        accept_changed_data=accept_changed_data,
        parallel=parallel,
        init=init,
        init_partial=init_partial,
        freeze=freeze or (),
        track=track,
        console=Console("json" if json else "auto"),
        **options,
    )


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"`{text}` sets nothing", help="write NAME=VALUE, such as optimizer.lr=1e-3")
    return name.strip(), value


@app.command
def sample(
    run: Path | None = None,
    *,
    n: Annotated[int | None, Parameter(name=["--number", "-n"])] = None,
    seed: int | None = None,
    steps: Annotated[list[int] | None, Parameter(negative=())] = None,
    solver: Annotated[list[str] | None, Parameter(negative=())] = None,
    grid: str | None = None,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    guidance: float | None = None,
    guidance_interval: str | None = None,
    guidance_rescale: float | None = None,
    negative_label: str | None = None,
    classifier_scale: float | None = None,
    out: Path | None = None,
    replay: Path | None = None,
    compare: Annotated[bool, Switch] = False,
    exact: Annotated[bool, Switch] = False,
    batch: int = 64,
    metadata: bool = True,
) -> None:
    """Draw samples from a trained model.

    Args:
        run: a run's folder or a model's.
        n: how many; 64 where it is not given.
        seed: of the first sample; sample k has seed + k, whatever the batch.
        steps: steps of the solver; repeated, with --compare, the evaluations to compare.
        solver: such as dpmpp, heun, ddim, ancestral; repeated, with --compare, those to compare.
        grid: such as karras, log_snr, uniform, trailing.
        label: a class by name; repeated, one sample each in turn.
        guidance: strength of classifier-free guidance; 1 is none.
        guidance_interval: LOW,HIGH of sigma / alpha in which guidance acts, such as 0.3,5.
        guidance_rescale: 0 to 1, how much of the contrast that guidance adds is taken back.
        negative_label: a class that guidance leads away from.
        classifier_scale: strength of the classifier that `langevin classifier` trained, instead of guidance.
        out: grid.png, samples.npz or a folder/; a new name in this folder where it is not given.
        replay: a PNG that `langevin sample` made, to be made again from what is written in it.
        compare: a sheet of solvers by evaluations at equal seeds, with time and distance to the fine solution.
        exact: one at a time, so that the batch cannot change a bit.
        batch: samples at once.
        metadata: write the recipe into each file.
    """
    from langevin.recipes.sample import replay as again
    from langevin.recipes.sample import sample as draw

    if replay is not None:
        again(replay, run, out=out, say=print)
        return
    if run is None:
        raise UsageError("no model given", help="langevin sample RUN -n 64 --out grid.png")
    seed = 0 if seed is None else seed
    guided = {
        "guidance": guidance,
        "guidance_interval": None if guidance_interval is None else _interval(guidance_interval),
        "guidance_rescale": guidance_rescale,
        "negative_label": negative_label,
    }
    if compare:
        from langevin.recipes.compare import compare as beside

        given = {"solvers": solver or (), "evaluations": steps or (), "grid": grid, "label": label, **guided}
        beside(run, n=16 if n is None else n, seed=seed, out=out, say=print, **given)
        return
    for name, values in (("--steps", steps), ("--solver", solver)):
        if values is not None and len(values) != 1:
            raise UsageError(f"{name} is given {len(values)} times", help="add --compare to compare them")
    draw(
        run,
        64 if n is None else n,
        seed=seed,
        steps=steps[0] if steps else None,
        solver=solver[0] if solver else None,
        grid=grid,
        label=label,
        **guided,
        classifier_scale=classifier_scale,
        out=out,
        exact=exact,
        batch=batch,
        metadata=metadata,
        say=print,
    )


@app.command
def classifier(
    run: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    json: Annotated[bool, Switch] = False,
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
    from langevin.recipes.console import Console

    train_classifier(run, minutes=minutes, steps=steps, seed=seed, console=Console("json" if json else "auto"))


@app.command
def search(
    path: str | None = None,
    *,
    trials: int | None = None,
    minutes_per_trial: float | None = None,
    steps_per_trial: int | None = None,
    space: Path | None = None,
    confirm: Annotated[bool, Switch] = False,
    out: str | None = None,
    size: int | None = None,
    seed: int | None = None,
    resume: Path | None = None,
    config: Path | None = None,
    set: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: Annotated[bool, Switch] = False,
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
    from langevin.recipes.console import Console
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
        settings=dict(_setting(text) for text in set or []),
        resume=resume,
        console=Console("json" if json else "auto"),
    )


@app.command
def animate(run: Path) -> None:
    """Make an animation of the samples that a run drew as it went, from the same seeds.

    Args:
        run: a run's folder, finished or not.
    """
    from langevin.recipes.animate import animate as make

    print(f"made       {make(run)}")


@app.command
def ema(
    run: Path,
    *,
    sigma_rel: float | None = None,
    step: int | None = None,
    publish: Annotated[bool, Switch] = False,
    json: Annotated[bool, Switch] = False,
) -> None:
    """Make a model with an average of the weights of any width, after the run; without a width, the best on held-out data.

    Args:
        run: a run's folder; the model is written into it, as ema-WIDTH.
        sigma_rel: the width as a share of the run, such as 0.08; widths are compared on held-out data where it is not given.
        step: of which the average is; the last one where it is not given.
        publish: make it the run's model; the former one is kept beside it.
        json: one JSON object a line.
    """
    from langevin.recipes.console import Console
    from langevin.recipes.ema import ema as average

    average(run, sigma_rel=sigma_rel, step=step, publish=publish, console=Console("json" if json else "auto"))


def _interval(text: str) -> list[float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"`{text}` is no interval", help="write LOW,HIGH, such as 0.3,5") from None
    return [low, high]


@app.command
def tune(
    run: Path,
    *,
    steps: Annotated[list[int] | None, Parameter(negative=())] = None,
    seeds: int = 128,
    batch: int = 64,
    json: Annotated[bool, Switch] = False,
) -> None:
    """Fit the steps to a trained model, so that few of them end nearer to what many would give.

    Args:
        run: a finished run's folder or a model's; what is found is kept in it.
        steps: how many, 6 where it is not given; may be repeated.
        seeds: samples to tune with; half of them judge what was found.
        batch: samples at once.
        json: one JSON object a line.
    """
    from langevin.recipes.console import Console
    from langevin.recipes.tune import tune as fit_steps

    fit_steps(run, steps=steps or [6], seeds=seeds, batch=batch, console=Console("json" if json else "auto"))


@app.command
def checkpoints(run: Path) -> None:
    """List a run's checkpoints: step, size, held-out loss, and whether each is sound; exit code 7 where one is not.

    Args:
        run: a run's folder.
    """
    from langevin.recipes.checkpoints import look, table

    found = look(run)
    print(table(found))
    if any(one.wrong for one in found):
        raise SystemExit(7)


@data.command(name="check")
def data_check(
    path: str,
    *,
    size: int | None = None,
    fit: Literal["crop", "pad", "skip"] = "crop",
    matte: str | None = None,
    frames: Literal["first", "all"] = "first",
    allow_rejects: float = 1.0,
    out: Path | None = None,
) -> None:
    """Say what is in a folder or file, what is wrong with it, and what training would do.

    Args:
        path: as for `langevin train`.
        size: side of the pictures; chosen from the data.
        fit: how pictures of another shape are made to fit.
        matte: a colour to lay under transparent pictures.
        frames: which frames of animations.
        allow_rejects: share of unusable files that is let pass here.
        out: where the contact sheet goes; a new name in this folder where it is not given.
    """
    from langevin.recipes.look import look

    look(path, out=out, say=print, size=size, fit=fit, matte=matte, frames=frames, allow_rejects=allow_rejects)


@app.command
def doctor() -> None:
    """Look at Python, torch, the processor, memory, disk and extras, and say what to do about each."""
    from langevin.recipes.doctor import diagnose, table

    findings = diagnose()
    print(table(findings))


@app.command
def check() -> None:
    """Compare every formula with its closed form on this machine; about half a minute."""
    from langevin.recipes.check import run_checks, table

    checks = run_checks()
    print(table(checks))
    if not all(one.ok for one in checks):
        raise SystemExit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    _open_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def _open_streams() -> None:
    """Where a standard stream was closed the next file opened would get its number, and lines and warnings with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def run(arguments: list[str]) -> int:
    """The exit code: 0 ok, 1 bug, 2 usage, 3 data, 4 diverged, 5 memory, 6 disk, 7 refused, 75 pre-empted, 130 interrupted."""
    debug = DEBUG in arguments
    arguments = [a for a in arguments if a != DEBUG]
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _tell(" ".join(str(error).split()), 2)
    except LangevinError as error:
        if debug:
            traceback.print_exc()
        return _tell(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _tell("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error) and "can't allocate" not in str(error):
            raise
        return _tell("out of memory   help: a smaller --size, or --set micro_batch=8", 5)
    except OSError as error:
        if debug or error.errno not in REMEDIES:
            raise
        where = f"   {error.filename}" if error.filename else ""
        return _tell(
            f"the disk refuses: {error.strerror}{where}   help: {REMEDIES[error.errno]}; what was saved is intact", 6
        )
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def _tell(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code

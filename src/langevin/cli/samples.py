"""Commands that draw samples, and that find the steps to draw them in."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from langevin.cli.options import Counts, Names, Switch, console, interval
from langevin.errors import UsageError


def sample(
    run: Path | None = None,
    *,
    n: Annotated[int | None, Parameter(name=["--number", "-n"])] = None,
    seed: int | None = None,
    steps: Counts = None,
    solver: Names = None,
    grid: str | None = None,
    label: Names = None,
    guidance: float | None = None,
    guidance_interval: str | None = None,
    guidance_rescale: float | None = None,
    negative_label: str | None = None,
    classifier_scale: float | None = None,
    out: Path | None = None,
    replay: Path | None = None,
    compare: Switch = False,
    exact: Switch = False,
    precision: Literal["float32", "bfloat16"] | None = None,
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
        guidance: strength of classifier-free guidance; 1 is none, the model's own where it is not given.
        guidance_interval: LOW,HIGH of sigma / alpha in which guidance acts, such as 0.3,5.
        guidance_rescale: 0 to 1, how much of the contrast that guidance adds is taken back.
        negative_label: a class that guidance leads away from.
        classifier_scale: strength of the classifier that `langevin classifier` trained, instead of guidance.
        out: grid.png, samples.npz or a folder/; a new name in this folder where it is not given.
        replay: a PNG that `langevin sample` made, to be made again from what is written in it.
        compare: a sheet of solvers by evaluations at equal seeds, with time and distance to the fine solution.
        exact: one at a time, so that the batch cannot change a bit.
        precision: of the network's products; bfloat16 takes half the time where there is hardware for it.
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
    guided: dict[str, Any] = {
        "guidance": guidance,
        "guidance_interval": interval(guidance_interval),
        "guidance_rescale": guidance_rescale,
        "negative_label": negative_label,
    }
    if compare:
        from langevin.recipes.compare import compare as beside

        beside(
            run,
            n=16 if n is None else n,
            seed=seed,
            label=label,
            solvers=solver or (),
            evaluations=steps or (),
            grid=grid,
            out=out,
            **guided,
            say=print,
        )
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
        precision=precision,
        batch=batch,
        metadata=metadata,
        say=print,
    )


def animate(run: Path) -> None:
    """Make an animation of the samples that a run drew as it went, from the same seeds.

    Args:
        run: a run's folder, finished or not.
    """
    from langevin.recipes.animate import animate as make

    print(f"made       {make(run)}")


def tune(
    run: Path,
    *,
    steps: Counts = None,
    seeds: int = 128,
    batch: int = 64,
    json: Switch = False,
) -> None:
    """Fit the steps to a trained model, so that few of them end nearer to what many would give.

    Args:
        run: a finished run's folder or a model's; what is found is kept in it.
        steps: how many, 6 where it is not given; may be repeated.
        seeds: samples to tune with; half of them judge what was found.
        batch: samples at once.
        json: one JSON object a line.
    """
    from langevin.recipes.tune import tune as fit_steps

    fit_steps(run, steps=steps or [6], seeds=seeds, batch=batch, console=console(json))

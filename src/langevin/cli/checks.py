"""Commands that look at what is there: samples, data, checkpoints, this machine, the formulas."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from langevin.cli.options import Names, Switch, console


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


def doctor() -> None:
    """Look at Python, torch, the processor, memory, disk and extras, and say what to do about each."""
    from langevin.recipes.doctor import diagnose, table

    findings = diagnose()
    print(table(findings))


def check() -> None:
    """Compare every formula with its closed form on this machine; about half a minute."""
    from langevin.recipes.check import run_checks, table

    checks = run_checks()
    print(table(checks))
    if not all(one.ok for one in checks):
        raise SystemExit(1)


def evaluate(
    run: Path | None = None,
    other: Path | None = None,
    *,
    real: Path | None = None,
    generated: Path | None = None,
    n: Annotated[int | None, Parameter(name=["--number", "-n"])] = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    features: Names = None,
    quick: Switch = False,
    lang: Literal["en", "zh"] = "en",
    out: Path | None = None,
    batch: int = 64,
    json: Switch = False,
) -> None:
    """Say how good samples are, with error bars, floors and an audit for copies, in one page: report.html.

    Args:
        run: a run's folder or a model's, whose samples are judged.
        other: another run or model, or pictures, to compare with.
        real: real pictures to hold against, in the place of the run's own data.
        generated: a folder, .npz or .npy of pictures to judge; no model is needed.
        n: generated items; as many as are held out, 256 to 2,000, where it is not given.
        seed: of all that is drawn at random.
        steps: of the sampler; the model's own where it is not given.
        guidance: strength of guidance; the model's own where it is not given.
        features: NAME=WEIGHTS of a network to take figures in beside: inception, dinov2 or clip; may be repeated.
        quick: leave out learned features and likelihood.
        lang: en or zh.
        out: the page; report.html in the run's folder or here, or the next free name.
        batch: samples at once.
        json: one JSON object a line.
    """
    from langevin.recipes.evaluate import evaluate as judge

    judge(
        run,
        other,
        real=real,
        generated=generated,
        n=n,
        seed=seed,
        steps=steps,
        guidance=guidance,
        features=features or (),
        quick=quick,
        lang=lang,
        out=out,
        batch=batch,
        console=console(json),
    )

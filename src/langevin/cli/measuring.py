"""Commands that measure a trained model."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from langevin.cli.options import Switch, console


def curve(
    run: Path,
    *,
    over: Literal["steps", "guidance", "average", "training"],
    at: Annotated[list[float] | None, Parameter(negative=(), consume_multiple=True)] = None,
    n: Annotated[int, Parameter(name=["--number", "-n"])] = 1000,
    seed: int = 2_000_000,
    batch: int = 64,
    dry: Switch = False,
    json: Switch = False,
) -> None:
    """Draw how good samples are over a setting, and keep the best setting with the model.

    Args:
        run: a finished run's folder; its data must be where they were.
        over: evaluations of the network, strength of guidance, width of the average of the weights, or steps of training.
        at: where to measure, such as 4 8 16; chosen where it is not given.
        n: samples of a point, from the same seeds at each; never more than there are held-out items.
        seed: of the first sample.
        batch: samples at once.
        dry: keep nothing with the model.
        json: one JSON object a line.
    """
    from langevin.recipes.curve import curve as measure

    measure(run, over, at=at or (), n=n, seed=seed, batch=batch, dry=dry, console=console(json))

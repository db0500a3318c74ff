"""What a budget of minutes is good for on this machine: a few steps are timed before the first one counts."""

import copy
import time
from itertools import count
from statistics import median

from langevin.config import TrainConfig
from langevin.diffusion import NetworkDenoiser
from langevin.training import TrainState, fit
from langevin.training.distributed import World
from langevin.training.feed import Feed
from langevin.words import counted

SHARE, SECONDS = 0.01, 3.0
"""Of the budget, and at most so long, is spent on that."""
WARM = 2
"""Steps that come first: they find memory and choose kernels."""
STEPS = 0.96
"""Of a run's time, what goes into steps; the rest into looks, sheets, checkpoints and the choice of an average."""


def line(denoiser: NetworkDenoiser, feed: Feed, config: TrainConfig, world: World, started: float) -> str | None:
    """How far a run comes, in words; None where it is by steps, or where a few of them cannot be tried cheaply.

    Args:
        started: `time.perf_counter()` from which the budget counts.
    """
    dear = (
        world.size > 1 or world.device.type != "cpu" or config.compile is True
    )  # processes and code would be made for it
    if not config.minutes or dear or config.private:
        return None
    seconds = step_seconds(denoiser, feed, config)
    left = started + 60 * config.minutes - time.perf_counter()
    steps, items = max(STEPS * left / seconds, 1), len(feed.indices)
    often = steps * feed.batch / items
    times = f"each {often:,.1f} times" if often >= 1 else f"{often:.0%} of them"
    seen = f"{_round(steps * feed.batch)} seen of {counted(items, 'item')}, {times}"
    return f"forecast   about {_round(steps)} steps of {1e3 * seconds:.3g} ms: {seen}"


def step_seconds(denoiser: NetworkDenoiser, feed: Feed, config: TrainConfig) -> float:
    """How long a step of this run takes, tried on a copy: nothing of the run is touched."""
    network = copy.deepcopy(denoiser.network)
    trial = NetworkDenoiser(network, denoiser.process, denoiser.parametrization)
    plain = config.model_copy(update={"minutes": None, "steps": 2**40, "freeze": ()})
    steps = fit(trial, feed, plain, TrainState.start(network, plain))
    end = time.perf_counter() + min(SECONDS, SHARE * 60 * (config.minutes or 0))
    took: list[float] = []
    for k in count():
        begun = time.perf_counter()
        if k > WARM and begun > end:
            break
        next(steps)
        took.append(time.perf_counter() - begun)
    return median(took[WARM:])


def _round(number: float) -> str:
    """Two digits that count."""
    return f"{float(f'{number:.2g}'):,.0f}"

"""What a budget is good for: on this machine, of which a few steps are timed before the first one counts; and with these data,
of which looks tell while the run goes.

In a short budget a held-out loss follows the number of steps more than the number of parameters, in a long one less: a network's
best size grows with what can be computed (for language models: Hoffmann et al. 2022, arXiv:2203.15556). How fast, was fitted
to held-out losses at two budgets (docs/recipe.md).
"""

import copy
import math
import time
from collections.abc import Sequence
from itertools import count
from statistics import median

import numpy as np

from langevin.config import TrainConfig
from langevin.data.dataset import Dataset
from langevin.diffusion import NetworkDenoiser
from langevin.recipes import plan
from langevin.training import TrainState, fit
from langevin.training.distributed import World
from langevin.training.feed import Feed
from langevin.words import counted

SHARE, SECONDS = 0.005, 2.0
"""Of the budget, and at most so long, is spent on a trial."""
WARM = 2
"""Steps that come first: they find memory and choose kernels."""
STEPS = 0.96
"""Of a run's time, what goes into steps; the rest into looks, sheets, checkpoints and the choice of an average."""
USUAL, POWER, LEAST, MOST = 20_000, 0.15, 0.5, 2.0
"""Widths go with a power of the steps of 32 samples that the usual network would take, which is right at so many; and how far
they are changed at most."""

LEAST_FALL, MOST_FALL, EITHER_WAY, FROM = 0.25, 0.65, 0.005, 0.25
"""Of what a slope promises, so much comes at least and at most; more or less by so much; known from that share of a run on."""


def expected(looks: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Between what the held-out loss will lie at the end of a run whose learning rate falls as a cosine to zero.

    Its logarithm, which fell by b while the share of the budget went from p / 2 to p, will fall by 0.25 to 0.65 b log2(1 / p)
    until the end, half a per cent more or less: fitted to 22 runs of 900 to 9,550 steps on five sets, it held
    at 97 % of their 164 looks. The clock counts: who slows the machine down in the middle makes the range wrong.

    Args:
        looks: (share of the budget, held-out loss) by now.

    Returns:
        (low, high); None before a quarter of the run, and where the loss does not fall.
    """
    share, loss = np.array([look for look in looks if look[0] > 0]).reshape(-1, 2).T
    if len(share) < 3 or not FROM <= share[-1] < 1 or share[0] > share[-1] / 2:
        return None
    fell = np.interp(math.log(share[-1] / 2), np.log(share), np.log(loss)) - math.log(loss[-1])
    if fell <= 0:
        return None
    promised = fell * math.log2(1 / share[-1])
    low, high = -MOST_FALL * promised - EITHER_WAY, min(EITHER_WAY - LEAST_FALL * promised, 0.0)
    return float(loss[-1] * math.exp(low)), float(loss[-1] * math.exp(high))


def resolve(config: TrainConfig, dataset: Dataset, world: World, started: float) -> TrainConfig:
    """`plan.resolve` with a network as large as the budget of minutes is good for.

    Fitted on a CPU; on a GPU the steps that are tried are not compiled, which makes the widths at most a tenth too small.

    Args:
        started: `time.perf_counter()` from which the budget counts.
    """
    plain = plan.resolve(config, dataset)
    left = _left(config, started)
    if config.network is not None or config.init is not None or left <= 0 or _is_dear(config, world):
        return plain
    model = plan.make(plain, dataset).to(world.device)
    state = TrainState.start(model.denoiser.network, plain)
    feed = plan.feed(plain, dataset, model.codec, state, world)
    steps = left / step_seconds(model.denoiser, feed, plain) * feed.batch / 32
    return plan.resolve(config, dataset, min(max((steps / USUAL) ** POWER, LEAST), MOST))


def line(denoiser: NetworkDenoiser, feed: Feed, config: TrainConfig, world: World, started: float) -> str | None:
    """How far a run comes, in words; None where it is by steps, nothing is left, or a few steps cannot be tried cheaply.

    Args:
        started: `time.perf_counter()` from which the budget counts.
    """
    if _left(config, started) <= 0 or _is_dear(config, world) or world.device.type != "cpu":
        return None  # what is compiled takes other steps than those that can be tried
    seconds = step_seconds(denoiser, feed, config)
    steps, items = max(_left(config, started) / seconds, 1), len(feed.indices)
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


def _left(config: TrainConfig, started: float) -> float:
    """Seconds that go into steps."""
    return STEPS * (started + 60 * (config.minutes or 0) - time.perf_counter())


def _is_dear(config: TrainConfig, world: World) -> bool:
    """Whether processes or compiled code would have to be made for a trial, or epsilon spent."""
    return bool(world.size > 1 or config.compile is True or config.private)


def _round(number: float) -> str:
    """Two digits that count."""
    return f"{float(f'{number:.2g}'):,.0f}"

"""Opening the data that a config names: with progress, the report, and an ear for signals."""

from collections.abc import Callable

from langevin import data
from langevin.config import TrainConfig, parse
from langevin.data import audit, sanity
from langevin.data.dataset import Dataset
from langevin.recipes.console import Console
from langevin.recipes.signals import StopRequest
from langevin.training.distributed import ALONE, World


def dataset_of(config: TrainConfig, progress: Callable[[int, int], None]) -> Dataset:
    """The data; `progress` is called with how many of how many are read, and what it raises ends that."""
    found = data.open(config.data.path, **config.data.model_dump(exclude={"path", "flip", "labels"}), progress=progress)
    return found if config.data.labels else found.unlabelled()


def read(
    config: TrainConfig | None, console: Console, stop: StopRequest, *, again: str = "", world: World = ALONE
) -> Dataset:
    """The data to train on, and their report on the console.

    Args:
        config: None in all processes of `world` but rank 0, whose it is then.
        again: what to do after a stop, in words.

    Raises:
        DataError: nothing there to learn from. StoppedError: asked to stop meanwhile.
    """
    shared = parse(world.share(lambda: config.model_dump(mode="json") if config else {}))

    def progress(done: int, total: int) -> None:
        console.progress("reading", done / max(total, 1), f"{done:,} of {total:,}")
        stop.heed("stopped while the data were read, before any step", help=again)

    dataset = world.first_on_host(lambda: dataset_of(shared, progress))
    console.done()
    sanity.refuse_constant(dataset)
    dataset.require(2, "training")
    for line in audit.report(dataset).splitlines():
        console.say(line)
    stop.heed("stopped before any step", help=again)
    return dataset

"""A run's settings and data, as it began with them."""

from collections.abc import Callable
from pathlib import Path

from langevin.config import TrainConfig, parse, read_yaml
from langevin.data.dataset import Dataset
from langevin.errors import DataError
from langevin.recipes import folders
from langevin.recipes.reading import dataset_of


def reopen(run: Path, heed: Callable[[], None] = lambda: None) -> tuple[TrainConfig, Dataset]:
    """Read config.yaml and the data it names.

    Args:
        heed: called while the data are read; what it raises ends that.

    Raises:
        UsageError: no run lies there. DataError: other data than the run's.
    """
    folders.found(run, "config.yaml", "run")
    config = parse(read_yaml(run / "config.yaml"), where=str(run / "config.yaml"))
    dataset = dataset_of(config, lambda done, total: heed())
    if (run / "data.sha256").read_text("utf-8", "replace") != dataset.fingerprint:
        raise DataError("the data are not those of the run", where=config.data.path, help="put them back")
    return config, dataset

"""A run's settings and data, as it began with them."""

from collections.abc import Callable
from pathlib import Path

from langevin import data
from langevin.config import TrainConfig, parse, read_yaml
from langevin.data.dataset import Dataset
from langevin.errors import DataError, UsageError


def reopen(run: Path, heed: Callable[[], None] = lambda: None) -> tuple[TrainConfig, Dataset]:
    """Read config.yaml and the data it names.

    Args:
        heed: called while the data are read; what it raises ends that.

    Raises:
        UsageError: no run lies there. DataError: other data than the run's.
    """
    if not (run / "config.yaml").is_file():
        raise UsageError("there is no run", where=str(run), help="give a run's folder, such as runs/photos-1")
    config = parse(read_yaml(run / "config.yaml"), where=str(run / "config.yaml"))
    settings = config.data.model_dump(exclude={"path", "flip"})
    dataset = data.open(config.data.path, **settings, progress=lambda done, total: heed())
    if (run / "data.sha256").read_text() != dataset.fingerprint:
        raise DataError("the data are not those of the run", where=config.data.path, help="put them back")
    return config, dataset

"""TensorBoard: event files in RUN/tensorboard, to be looked at with `tensorboard --logdir runs`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from langevin.recipes.trackers.base import Tracker


class TensorBoard(Tracker):
    """One event file a sitting; steps that a killed run does again replace those it had told of."""

    module: ClassVar[str] = "tensorboard"

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        import yaml
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        if not step:
            text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
            self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def image(self, step: int, name: str, array: np.ndarray) -> None:
        self._writer.add_image(name, array, step, dataformats="HWC")
        self._writer.flush()

    def done(self) -> None:
        self._writer.close()

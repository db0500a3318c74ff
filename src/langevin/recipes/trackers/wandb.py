"""Weights & Biases, into RUN/wandb: sent where an account's key is known, kept for `wandb sync` where none is.

Numbers, sheets of samples and the config are told; nothing about the machine, the program's code or its repository.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from langevin.recipes.trackers.base import Tracker


class WandB(Tracker):
    """One W&B run for one run, whatever sittings it takes. WANDB_MODE, WANDB_PROJECT and the like are obeyed."""

    module: ClassVar[str] = "wandb"

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        import wandb

        self._wandb, place = wandb, folder.absolute()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "langevin"),
            name=place.name,
            id=_identity(place),
            resume="allow",
            dir=str(place),
            mode=os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline"),
            config=dict(config),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
        self._run.define_metric("step", hidden=True)  # W&B's own counter refuses to go back, as a resumed run does
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def image(self, step: int, name: str, array: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(array), "step": step})

    def done(self) -> None:
        self._run.finish()


def _identity(folder: Path) -> str:
    """The same for every sitting of a run, another for every other run: drawn once and kept in its folder."""
    kept = folder / "wandb.id"
    if not kept.exists():
        kept.write_text(hashlib.sha256(os.urandom(32)).hexdigest()[:16])
    return kept.read_text().strip()

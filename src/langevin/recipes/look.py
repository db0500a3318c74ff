"""`langevin data check`: what is in the data, what is wrong with them, and what training would do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from langevin import data, store
from langevin.config import DataConfig, TrainConfig
from langevin.data import audit
from langevin.recipes import folders, plan
from langevin.words import counted


def look(path: str, *, out: Path | None = None, say: Callable[[str], None] = print, **options: Any) -> Path:
    """Say what was found and what training would do; write a contact sheet and give its path."""
    target = out or store.free_path(Path(f"{folders.name_for(path)}-contact.png"))
    store.refuse_taken(target)
    dataset = data.open(path, **options)
    say(audit.report(dataset))
    config = plan.resolve(TrainConfig(data=DataConfig(path=path), minutes=10), dataset)
    model = plan.make(config, dataset)
    parameters = sum(p.numel() for p in model.denoiser.network.parameters())
    say(
        f"training   would learn from {len(dataset.train_indices):,} and hold out {len(dataset.held_out_indices):,}, "
        f"with a {config.network['name'] if config.network else ''} of {parameters / 1e6:.2f} M parameters, "
        f"batch {config.batch}"
        + (f", by {counted(len(dataset.classes), 'class', 'classes')}" if dataset.classes else "")
    )
    audit.contact_sheet(dataset).save(target)
    say(f"sheet      {target}")
    say(f"next       langevin train {path} --minutes 10")
    return target

"""Settings of a model's sampler that are found after its training, kept in its folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langevin import store


def keep(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Put in the place of `sampling` in a model's config.json what `change` makes of it.

    The folder is written anew beside itself and takes its own place: it is whole at any moment, and its weights are the same.
    """
    config: dict[str, Any] = store.read_json(folder / "config.json")
    sampling = change(dict(config["sampling"]))
    files = [f for f in folder.iterdir() if f.name not in ("config.json", store.MANIFEST)]

    def write(new: Path) -> None:
        for file in files:
            shutil.copy2(file, new / file.name)
        (new / "config.json").write_text(json.dumps({**config, "sampling": sampling}, indent=1), "utf-8")

    store.write_folder(folder, write, size=sum(f.stat().st_size for f in files), replace=True)

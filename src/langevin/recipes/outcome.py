"""What came out of a run: the model folder, sheets to look at, figures to believe."""

import dataclasses
import io
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from langevin.config import TrainConfig
from langevin.data.dataset import Dataset
from langevin.errors import DataError, MemoryShortError
from langevin.evaluation.figures import Figure, figures, table
from langevin.evaluation.labels import LabelJudge
from langevin.evaluation.noise_levels import LevelLoss
from langevin.evaluation.sheets import real_against_generated
from langevin.evaluation.verdict import Verdict
from langevin.model import Model, load, modality_of
from langevin.recipes.averages import Measured, best, rows
from langevin.recipes.console import Console
from langevin.store import write_file
from langevin.training.memory import attempt, shrinking
from langevin.words import counted

AT_ONCE = 64
"""So many samples are drawn at once, where memory has room for them."""
SMALL_STEPS = 10
"""Of the sampler, for a sheet that is drawn on the way."""
FIGURE_SAMPLES = 2000
"""So many samples the figures stand on, at most; never more than there are held-out items."""
FIGURE_BYTES = 512 << 20
"""So many bytes of real items the figures look at, at most."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        model: trained, ready to sample.
        figures: of its samples against real data, with the real-against-real floor.
        held_out: the loss on unseen data, per noise level.
        samples: what the figures stand on, in the data's own layout.
        labels: their classes; None without labels.
    """

    path: Path
    model: Model
    figures: tuple[Figure, ...]
    held_out: LevelLoss
    samples: np.ndarray
    labels: np.ndarray | None


def measure(
    model: Model,
    dataset: Dataset,
    folder: Path,
    config: TrainConfig,
    level: LevelLoss,
    *,
    averages: Sequence[Measured],
    verdict: Verdict,
    done: str,
    console: Console,
    heed: Callable[[], None],
) -> Run:
    """Write a run's model, and beside it samples, sheets and figures.

    Args:
        averages: what was measured; the model has the best.
        verdict: on the run.
        done: what was trained, in words, for the card.
        heed: called between two parts of the work; raises where the run was asked to stop.
    """
    device = next(model.denoiser.parameters()).device

    def about(made: list[Figure]) -> dict[str, Any]:
        return {
            "name": folder.name,
            "data": f"{Path(dataset.audit.source).name}: {counted(len(dataset), 'item')}, fingerprint {dataset.fingerprint[:16]}",
            "training": done,
            "device": device.type,
            "average": str(best(averages).average),
            "held-out loss": round(level.mean, 5),
            "verdict": verdict.line,
            "figures": [dataclasses.asdict(figure) for figure in made],
        }

    model.about = about([])
    target = model.save(folder / "model", replace=True)
    train_rows, unseen_rows = (some_rows(dataset, rows) for rows in (dataset.train_indices, dataset.held_out_indices))
    count = min(FIGURE_SAMPLES, max(len(unseen_rows), 64))
    seeds = range(1_000_000, 1_000_000 + count)

    def progress(done: int, n: int) -> None:
        console.progress("sampling", done / n, f"{done:,} of {n:,}")
        heed()

    samples = shrinking(
        lambda batch: model.sample(seeds=seeds, batch=batch, progress=progress), AT_ONCE, "samples", console.say
    )
    if samples is None:
        raise MemoryShortError("no memory for a single sample", where=str(target), help="sample it on a larger machine")
    console.done()
    labels, items = model.labels(seeds), with_axis(samples, model)
    train_items, unseen = dataset.take(train_rows), dataset.take(unseen_rows)
    made: list[Figure] = []
    try:
        found = attempt(lambda: figures(train_items, unseen, items, seed=config.seed, heed=heed))
        if found is None:
            console.say("memory     figures: left out, there is no room for them")
        made += found or []
        if labels is not None and (
            judge := LabelJudge.among(dataset.items, dataset.columns["label"], train_rows, unseen_rows)
        ):
            made.append(judge.agreement(items, labels))
    except DataError as error:
        console.say(f"figures are missing: {error}")
    model.about = about(made)
    model.save(target, replace=True)
    sheet, compared = folder / "samples.png", folder / "real-and-generated.png"
    if (drawn := preview(model, console.say)) is not None:
        save_picture(drawn, sheet)
    save_picture(real_against_generated(unseen if len(unseen) >= 16 else train_items, items), compared)
    facts = {
        "held_out_loss": level.mean,
        "ratios": level.ratios,
        "levels": level.losses,
        "averages": rows(averages),
        "verdict": verdict.facts(),
        "figures": [dataclasses.asdict(figure) for figure in made],
    }
    heed()
    write_file(folder / "figures.json", json.dumps(facts, indent=1))
    _tell(console.say, folder, config, model, level, made, sheet, compared)
    return Run(folder, load(target).to(device), tuple(made), level, samples, labels)


def save_picture(picture: Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    body = io.BytesIO()
    picture.save(body, "PNG")
    write_file(path, body.getvalue())


def preview(model: Model, say: Callable[[str], None], *, small: bool = False) -> Any:
    """The sheet of samples of `sheet_of`. None, and a word, where memory has no room."""
    seeds, labels, columns = sheet_of(model, small)
    steps = SMALL_STEPS if small else None
    items = shrinking(
        lambda batch: model.sample(seeds=seeds, label=labels, steps=steps, batch=batch), AT_ONCE, "preview", say
    )
    return None if items is None else modality_of(model.modality).preview(with_axis(items, model), columns)


def some_rows(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """So many of the rows, evenly spread, that their items and what is made of them fit into memory."""
    most = max(2 * FIGURE_SAMPLES, FIGURE_BYTES // max(1, dataset.items[:1].nbytes))
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def _tell(
    say: Callable[[str], None],
    folder: Path,
    config: TrainConfig,
    model: Model,
    level: LevelLoss,
    made: list[Figure],
    sheet: Path,
    compared: Path,
) -> None:
    say("")
    karras = (config.weight or {}).get("name") == "karras"
    say(f"held-out loss by noise level{' (1 = an untrained network)' if karras else ''}")
    say("  sigma " + " ".join(f"{r:8.3g}" for r in level.ratios))
    say("  loss  " + " ".join(f"{v:8.4f}" for v in level.losses))
    if made:
        say("")
        say(table(made))
    say("")
    say(f"model      {folder / 'model'}")
    say(f"samples    {sheet}")
    say(f"compared   {compared}")
    label = f" --label {shlex.quote(model.classes[0])}" if model.classes else ""
    say(f"judge      langevin evaluate {shlex.quote(str(folder))}")
    say(f"next       langevin sample {shlex.quote(str(folder))} -n 64{label} --out samples.png")


def sheet_of(model: Model, small: bool = False) -> tuple[list[int], "list[str] | None", int]:
    """(seeds, labels, columns) of the sheet that a run draws: ten of each class for up to 12 classes, else 8 x 8; a small one,
    as it is drawn on the way, has half as many.
    """
    if not model.classes or len(model.classes) > 12:
        return list(range(32 if small else 64)), None, 8
    columns = 5 if small else 10
    return (
        [k for _ in model.classes for k in range(columns)],
        [name for name in model.classes for _ in range(columns)],
        columns,
    )


def with_axis(items: np.ndarray, model: Model) -> np.ndarray:
    """Items with their channel axis."""
    return items[..., None] if getattr(model.codec, "squeeze", False) else items

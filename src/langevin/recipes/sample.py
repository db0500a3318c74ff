"""`langevin sample`: pictures from a trained model, each with the recipe by which it can be made again."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langevin import __version__, store
from langevin.data.png import read_metadata
from langevin.errors import RefusedError, UsageError, nearest
from langevin.guidance import ClassifierGuidance
from langevin.model import Model, locate, modality_of
from langevin.recipes.classifier import load_classifier
from langevin.recipes.plan import computes_in_bfloat16, device, ready
from langevin.recipes.signals import at_each_evaluation, stop_requests
from langevin.registry import build, describe
from langevin.solvers.base import Solver
from langevin.solvers.grids import Grid
from langevin.words import counted

MOST_IN_A_SHEET, MOST = 1024, 10_000_000
"""Pictures in one PNG, whose recipes must stay readable; samples at once."""
Say = Callable[[str], None]
_GUIDANCE = ("guidance_interval", "guidance_rescale", "negative_label")
_SETTINGS = ("steps", "solver", "grid", "guidance", "exact", "precision", *_GUIDANCE)
_CLASSIFIER = "classifier_scale"


def sample(
    run: Path,
    n: int,
    *,
    seed: int = 0,
    label: "Sequence[str] | None" = None,
    out: Path | None = None,
    metadata: bool = True,
    say: Say = print,
    **settings: Any,
) -> list[Path]:
    """Draw n samples and write them.

    Args:
        run: a run or model folder.
        label: classes by name, taken in turn.
        out: .png, .npz or a folder; a new name in the working folder where it is not given.
        metadata: whether each file holds its recipe.
        settings: of `Model.sample`; and classifier_scale, the strength of the classifier beside the run's model.

    Returns:
        the files made.
    """
    target = out or store.free_path(Path("samples.png"))
    store.refuse_taken(target)
    if target.suffix.lower() not in ("", ".png", ".npz"):
        raise UsageError(
            f"pictures are not written as {target.suffix}", where=str(target), help="use .png, .npz or a folder"
        )
    if not 1 <= n <= (MOST_IN_A_SHEET if target.suffix.lower() == ".png" else MOST):
        most = f"a sheet holds 1 to {MOST_IN_A_SHEET:,} pictures" if target.suffix else f"1 to {MOST:,} at once"
        raise UsageError(f"{n:,} samples cannot be drawn into {target.name}: {most}", help="write .npz or a folder")
    model = ready(run)
    seeds = range(seed, seed + n)
    labels = model.labels(seeds, [label[k % len(label)] for k in range(n)] if label else None)
    batch = settings.pop("batch", 64)
    recipe = _recipe(model, run, target, settings)
    if recipe["precision"] == "bfloat16" and not computes_in_bfloat16():
        say("note       there is no hardware for products of bfloat16 here: float32 is faster")
    with stop_requests() as stop:
        at_each_evaluation(model.denoiser, lambda: stop.heed("stopped while drawing: nothing is written"))
        items = _draw(model, run, seeds, labels, recipe, batch)
        made = _write(model, items, target, _rows(model, recipe, seeds, labels) if metadata else None)
    what = f"{made[0]}" if len(made) == 1 else f"{len(made)} files in {target}"
    named = settings.get("solver") is not None or settings.get("grid") is not None
    how = f"{counted(recipe['steps'], 'step')} of {recipe['solver']['name']}"
    how += "" if named or model.tuned(recipe["steps"]) is None else ", tuned for this model"
    say(f"made       {what}: {counted(n, 'sample')}, {how}, seeds {seed} to {seed + n - 1}")
    if metadata and made[0].suffix == ".png":
        say(f"next       langevin sample --replay {made[0]}    (makes the same again)")
    return made


def replay(picture: Path, run: Path | None = None, *, out: Path | None = None, say: Say = print) -> list[Path]:
    """Make a picture again from the recipe in it.

    Args:
        picture: a PNG that `sample` wrote.
        run: where the model is, if it is not where it was: looked for beside the picture and in runs/.

    Raises:
        UsageError: no recipe in the picture, or its model is not found. RefusedError: a recipe that is none.
    """
    if not picture.is_file():
        beside = [p.name for p in picture.parent.glob("*.png")] if picture.parent.is_dir() else []
        raise UsageError(
            "there is no such picture", where=str(picture), help=nearest(picture.name, beside) if beside else ""
        )
    found = read_metadata(picture)
    rows = found.get("pictures", [found]) if found else []
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and "langevin" in row for row in rows):
        raise UsageError("the picture holds no recipe", where=str(picture), help="only files that langevin wrote do")
    recipe = {k: v for k, v in rows[0].items() if k not in ("seed", "label", "class")}
    try:
        run = run if run is not None else _find(picture, str(recipe["run"]), str(recipe["model"]))
        model = ready(run)
        seeds = [int(row["seed"]) for row in rows]
        labels = np.array([int(row["label"]) for row in rows]) if "label" in rows[0] else None
        if labels is not None and not all(0 <= c < len(model.classes) for c in labels):
            raise UsageError("the recipe's labels are not this model's", where=str(picture))
        if model.digest != recipe["model"]:
            say("note       this is not the model that made the picture: its sha256 differs")
        items = _draw(model, run, seeds, labels, recipe, 64)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UsageError | RefusedError):
            raise
        raise RefusedError(f"the recipe in the picture is damaged: {error!r}", where=str(picture)) from error
    target = out or store.free_path(Path(f"{picture.stem}-replayed{picture.suffix}"))
    made = _write(model, items, target, rows)
    say(f"made       {made[0]}")
    return made


def _recipe(model: Model, run: Path, target: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """All that a sample depends on but its seed and label."""
    chosen = {k: settings.get(k) for k in (*_SETTINGS, _CLASSIFIER)}
    if chosen[_CLASSIFIER] is not None:
        chosen["guidance"] = _plain(chosen)
    if chosen["guidance"] is None:
        chosen["guidance"] = model.sampling.get("guidance", 1.0)
        if chosen["guidance_interval"] is None:
            chosen["guidance_interval"] = model.sampling.get("guidance_interval")
    steps, solver, grid = model.method(*(chosen[k] for k in ("steps", "solver", "grid")))
    return {
        "langevin": __version__,
        "model": model.digest,
        "run": _seen_from(target.parent if target.suffix else target, run),
        "steps": steps,
        "solver": describe(solver),
        "grid": describe(grid),
        "guidance": chosen["guidance"],
        "exact": bool(chosen["exact"]),
        "precision": chosen["precision"] or model.sampling.get("precision", "float32"),
        **{k: chosen[k] for k in (*_GUIDANCE, _CLASSIFIER) if chosen[k] is not None},
    }


def _plain(chosen: dict[str, Any]) -> float:
    """The guidance beside a classifier: none."""
    if other := [k for k in ("guidance", *_GUIDANCE) if chosen[k] not in (None, 1.0)]:
        raise UsageError(f"a classifier guides alone, without {', '.join(other)}", help="choose one of the two")
    return 1.0


def _seen_from(folder: Path, run: Path) -> str:
    """The run as seen from the picture; its name alone where that would tell of folders outside the working one."""
    here = Path.cwd()
    inside = all(path.absolute().is_relative_to(here) for path in (folder, run))
    return os.path.relpath(run, folder) if inside else run.absolute().name


def _draw(
    model: Model, run: Path, seeds: Sequence[int], labels: np.ndarray | None, recipe: dict[str, Any], batch: int
) -> np.ndarray:
    settings = {k: recipe[k] for k in _SETTINGS if k not in (*_GUIDANCE, "precision") or k in recipe}
    settings["solver"] = build(dict(settings["solver"]), Solver)  # from a file: langevin's own kinds and no other
    settings["grid"] = build(dict(settings["grid"]), Grid)
    if (scale := recipe.get(_CLASSIFIER)) is not None:
        classifier = load_classifier(run).to(device())
        settings["guidance"] = lambda denoiser: ClassifierGuidance(denoiser, classifier, float(scale))
    chosen = None if labels is None else labels.tolist()
    return model.sample(
        seeds=seeds, label=None if chosen is None else [model.classes[c] for c in chosen], batch=batch, **settings
    )


def _rows(
    model: Model, recipe: dict[str, Any], seeds: Sequence[int], labels: np.ndarray | None
) -> list[dict[str, Any]]:
    rows = [{**recipe, "seed": s} for s in seeds]
    if labels is not None:
        rows = [{**row, "label": int(c), "class": model.classes[c]} for row, c in zip(rows, labels, strict=True)]
    return rows


def _write(model: Model, items: np.ndarray, target: Path, rows: list[dict[str, Any]] | None) -> list[Path]:
    return modality_of(model.modality).write(items, target, metadata=rows)


def _find(picture: Path, run: str, digest: str) -> Path:
    """The run that made a picture: where it was then, as seen from the picture, or one of runs/ with the same model."""
    there = picture.parent / run
    candidates = [there, Path(run), *sorted(Path("runs").glob("*"))]
    folders = [folder for folder in candidates if (folder / "model").is_dir() or (folder / "config.json").is_file()]
    for folder in folders:
        try:
            files = store.read_json(locate(folder) / store.MANIFEST)
        except (RefusedError, UsageError):
            continue
        if files.get("model.safetensors", {}).get("sha256") == digest:
            return folder
    raise UsageError(
        "the model that made this picture was not found", where=run, help=f"langevin sample RUN --replay {picture}"
    )

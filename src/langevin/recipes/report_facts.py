"""The facts of a report that do not come from figures: how the run went, on what machine, at what cost, what was copied."""

import math
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from langevin import store
from langevin.config import read_yaml
from langevin.evaluation.copies import Audit, Pool
from langevin.recipes.judged import Judged, Real
from langevin.recipes.progress import Curve
from langevin.recipes.rows import read

NAMED = 40
"""Names of copied items in a report, at most."""
WATTS_THREAD, WATTS_GPU = 10.0, 350.0
"""Rough power of a busy thread and of a GPU, for the estimate of energy."""


def finite(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}


def audited(audit: Audit, pool: Pool, real: Real) -> dict[str, Any]:
    sources = [
        {"name": real.name(item), "times": times, "repeats": pool.repeats(item)}
        for item, times in audit.sources[:NAMED]
    ]
    return finite(
        {
            "space": audit.space,
            "p": audit.p,
            "nearer": audit.nearer,
            "expected": audit.expected,
            "named": len(audit.named),
            "items": audit.named[:1000].tolist(),
            "count": len(audit.index),
            "held_out": audit.held_out,
            "sources": sources,
        }
    )


def suspects(pool: Pool, real: Real) -> list[dict[str, Any]]:
    """Training items that are there more than once, the most frequent first."""
    return [{"name": real.name(item), "times": times} for item, times in pool.repeated[:NAMED]]


def training(made: Judged) -> dict[str, Any] | None:
    """How the run went, from its files; None where they are not there."""
    run, model = made.run, made.model
    if run is None or model is None or not (run / "metrics.jsonl").is_file():
        return None
    rows = [row for _, row in read(run / "metrics.jsonl")]
    curve, looks = Curve(), [row for row in rows if "held_out" in row]
    for row in rows:
        if "loss" in row:
            curve.add(row["step"], math.nan if row["loss"] is None else row["loss"], row.get("lr") or 0.0)
    steps = [row["step"] for row in rows if "loss" in row]
    clocks = [float(row.get("clock", row)["elapsed"]) for row in rows if "elapsed" in row.get("clock", row)]
    known = store.read_json(run / "figures.json") if (run / "figures.json").is_file() else {}
    last = looks[-1] if looks else {}
    return {
        "steps": steps[-1] if steps else 0,
        "minutes": clocks[-1] / 60 if clocks else 0.0,
        "parameters": sum(p.numel() for p in model.denoiser.network.parameters()),
        "verdict": known.get("verdict"),
        "curve": [[float(x) for x in point] for point in curve.points()],
        "looks": [{k: row.get(k) for k in ("step", "held_out", "training")} for row in looks],
        "ratios": known.get("ratios") or last.get("ratios"),
        "levels": known.get("levels") or last.get("levels"),
        "training_levels": last.get("training_levels"),
    }


def curves(run: Path | None) -> dict[str, Any]:
    """What `langevin curve` found."""
    found = {}
    for name in ("steps", "guidance", "average", "training"):
        files = sorted(run.glob(f"curve-{name}*.json"), key=lambda f: f.stat().st_mtime) if run is not None else []
        if files:
            found[name] = store.read_json(files[-1])
    return found


def settings(run: Path | None) -> dict[str, Any] | None:
    return None if run is None else {k: v for k, v in read_yaml(run / "config.yaml").items() if v is not None}


def machine() -> str:
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{where}, {torch.get_num_threads()} threads, {platform.system()}, {versions}"


def _processor() -> str:
    """The processor's name as the system knows it."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def energy(seconds: dict[str, Any]) -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    watts = WATTS_GPU if gpu else WATTS_THREAD * torch.get_num_threads()
    total = sum(value or 0.0 for value in seconds.values())
    return {"kwh": watts * total / 3.6e6, "watts": watts, "how": "energy.gpu" if gpu else "energy.cpu"}

"""A curve for people and for programs: a table on the console, a sheet of plots, rows as JSON."""

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langevin.evaluation.figures import Figure
from langevin.evaluation.metrics.base import Estimate
from langevin.recipes.averages import best as best_of
from langevin.recipes.curves.base import Advice, Over, Row
from langevin.store import write_file

COLUMNS = 3
WIDE = 6.0
"""From this ratio of the largest to the smallest value on, distances are shown on a logarithmic axis."""
WORDS = {"frechet": "Frechet distance", "kernel": "kernel distance", "seconds": "ms a sample"}


@dataclass(frozen=True)
class Cell:
    """A value, its standard error, and the same of real items that the model has not seen; nan where there is none."""

    value: float
    error: float = math.nan
    floor: float = math.nan
    floor_error: float = math.nan


def around(value: float, error: float | None) -> tuple[float | None, float | None]:
    """What holds the value of other sets of this count in 95 of 100 cases; never below 0 for a value that is not."""
    if error is None or not math.isfinite(error):
        return None, None
    low, high = Estimate(value, error).interval
    return max(low, 0.0) if value >= 0 else low, high


def cell(row: Row, name: str, rows: Sequence[Row]) -> Cell:
    """What a panel of that name shows of a row."""
    if name == "seconds":
        return Cell(1000 * row.seconds)
    if name == "held-out loss":
        others = [r.weights for r in rows if r.weights is not None and r.weights.average.kind != "raw"]
        if row.weights is None or not others:
            return Cell(math.nan if row.weights is None else row.weights.level.mean)
        return Cell(row.weights.level.mean, row.weights.above(best_of(others))[1])
    figure = row.figure(name)
    if figure is None:
        return Cell(math.nan)
    error, floor_error = (math.nan if e is None else e for e in (figure.error, figure.floor_error))
    return Cell(figure.value, error, figure.floor, floor_error)


def heading(over: Over) -> str:
    """The first line of the table."""
    return "  ".join(
        [f"{over.axis.partition(' (')[0].partition(' of ')[0]:>11}", *(f"{_title(p):>17}" for p in over.panels)]
    )


def line(over: Over, row: Row, rows: Sequence[Row]) -> str:
    """A row of the table."""
    return "  ".join([f"{row.name:>11}", *(f"{_said(name, cell(row, name, rows)):>17}" for name in over.panels)])


def floor(over: Over, rows: Sequence[Row]) -> str:
    """The last line of the table: real items that the model has not seen."""
    cells = [cell(rows[-1], name, rows) for name in over.panels]
    return "  ".join([f"{'real floor':>11}", *(f"{_said('', Cell(c.floor, c.floor_error)):>17}" for c in cells)])


def _title(name: str) -> str:
    return WORDS.get(name, name)


def _said(name: str, one: Cell) -> str:
    if math.isnan(one.value):
        return ""
    digits = f"{one.value:.5f}" if name == "held-out loss" else f"{one.value:.4g}"
    return digits + (f" ± {one.error:.2g}" if math.isfinite(one.error) and name != "held-out loss" else "")


def facts(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """A row as JSON-ready values.

    low and high lie around `value`, floor_low and floor_high around `floor`, all for this count of items: the two compare.
    interval holds what infinitely many items would give, as far as the bias of the figure is known. held_out_error is that of
    the difference to the best of `rows`.
    """
    loss = cell(row, "held-out loss", rows)
    return {
        "x": row.x,
        "name": row.name,
        "settings": dict(row.settings),
        **row.facts,
        **({"held_out_loss": loss.value, "held_out_error": loss.error} if row.weights else {}),
        "seconds": row.seconds,
        "figures": {f.name: _figure(f) for f in row.figures},
    }


def _figure(f: Figure) -> dict[str, Any]:
    (low, high), (floor_low, floor_high) = around(f.value, f.error), around(f.floor, f.floor_error)
    return {
        "value": f.value,
        "low": low,
        "high": high,
        "error": f.error,
        "floor": f.floor,
        "floor_low": floor_low,
        "floor_high": floor_high,
        "interval": [f.low, f.high],
        "count": f.count,
        "reference": f.reference,
        "higher_is_better": f.higher_is_better,
    }


def finite(value: Any) -> Any:
    """The same with null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_facts(path: Path, found: Mapping[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    write_file(path, json.dumps(finite(found), indent=1, allow_nan=False))


def draw(over: Over, rows: Sequence[Row], advice: Advice | None, title: str, path: Path) -> None:
    """A panel a figure: values with what holds 95 of 100 sets, the floor of real items with its own, what is recommended."""
    from matplotlib.figure import Figure as Sheet

    lines = math.ceil(len(over.panels) / COLUMNS)
    sheet = Sheet(figsize=(4.2 * COLUMNS, 3.2 * lines + 0.5), layout="constrained")
    panels = list(sheet.subplots(lines, COLUMNS, squeeze=False).flatten())
    for panel, name in zip(panels, over.panels, strict=False):
        _panel(panel, over, rows, name, advice)
    for panel in panels[len(over.panels) :]:
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    if len(over.panels) % COLUMNS:
        panels[len(over.panels)].legend(handles, labels, loc="center left", frameon=False)
    else:
        panels[0].legend(fontsize=8, framealpha=0.6)
    sheet.suptitle(title, fontsize=10)
    picture = io.BytesIO()
    sheet.savefig(picture, dpi=120)
    write_file(path, picture.getvalue())


def _panel(panel: Any, over: Over, rows: Sequence[Row], name: str, advice: Advice | None) -> None:
    cells = [cell(row, name, rows) for row in rows]
    values, errors, floors, floor_errors = np.array([(c.value, c.error, c.floor, c.floor_error) for c in cells]).T
    places = np.arange(len(rows)) if over.even else np.array([row.x for row in rows])
    reach = (np.nan_to_num(errors) * Estimate(0.0, 1.0).interval[1]).clip(0)
    panel.errorbar(places, values, reach, fmt="o-", markersize=4, capsize=2.5, color="C0", label="generated, 95 %")
    if np.isfinite(floors).any():
        middle, half = floors[-1], np.nan_to_num(floor_errors[-1]) * Estimate(0.0, 1.0).interval[1]
        panel.axhline(middle, color="0.45", linestyle="--", linewidth=1, label="new real items, 95 %")
        panel.axhspan(middle - half, middle + half, color="0.5", alpha=0.18, linewidth=0)
    if advice is not None:
        place = places[list(rows).index(advice.row)]
        panel.axvline(place, color="C3", linewidth=5, alpha=0.25, zorder=0, label=f"recommended: {advice.row.name}")
    panel.set_title(_title(name), fontsize=10)
    panel.set_xlabel(over.axis, fontsize=9)
    if over.log:
        panel.set_xscale("log")
        panel.set_xticks([], minor=True)
    _ticks(panel, over, rows, places)
    if name in ("frechet", "seconds") and values.min() > 0 and values.max() > WIDE * values.min():
        _log(panel, values)


def _ticks(panel: Any, over: Over, rows: Sequence[Row], places: np.ndarray) -> None:
    """A mark a point, with its name where that does not run into the one before."""
    seen = np.log(places) if over.log else places
    far, last, words = 0.055 * (np.ptp(seen) or 1.0), -math.inf, []
    for where, row in zip(seen, rows, strict=True):
        room = over.even or where - last >= far * max(1.0, len(row.name) / 2.2)
        words.append(row.name if room else "")
        last = where if room else last
    panel.set_xticks(places, words, fontsize=8, rotation=35 if over.even else 0)


def _log(panel: Any, values: Iterable[float]) -> None:
    """A logarithmic axis with plain numbers."""
    low, high = min(values), max(values)
    marks = [m * 10.0**e for e in range(-9, 10) for m in (1, 2, 5) if low / 1.6 <= m * 10.0**e <= high * 1.6]
    panel.set_yscale("log")
    panel.set_yticks(marks, [f"{m:g}" for m in marks])
    panel.set_yticks([], minor=True)

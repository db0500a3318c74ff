"""What a search found: a table, a sheet of plots, all trials as CSV, and whether the best is better by more than chance."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langevin.recipes.space import Range, Space
from langevin.recipes.study import Row
from langevin.store import write_file

SURE = 0.975
"""One-sided confidence at which a recipe is called better."""
TRUSTED = 10
"""With fewer complete trials than this nobody can tell which setting matters."""


def best_first(rows: Sequence[Row]) -> list[Row]:
    """Trials that came to their end, the lowest held-out loss first."""
    return sorted((r for r in rows if r.held_out is not None), key=lambda r: (r.held_out, r.number))


def default_of(rows: Sequence[Row], space: Space) -> Row | None:
    """The trial of the default recipe."""
    return next((r for r in rows if r.values == space.origin()), None)


def table(rows: Sequence[Row], space: Space, count: int = 5) -> str:
    """The best trials, and the default recipe beneath them where it is not among them."""
    ranked = best_first(rows)
    shown = ranked[:count] + [r for r in ranked[count:] if r.values == space.origin()]
    lines = [["", "trial", "held-out", *space.kinds]]
    for row in shown:
        said = space.said(row.values)
        mark = " (default)" if row.values == space.origin() else ""
        place = str(ranked.index(row) + 1)
        lines.append([place, f"{row.number}{mark}", f"{row.held_out:.5f}", *map(_short, said.values())])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tally(rows: Sequence[Row]) -> str:
    """`12 complete, 7 pruned, 1 killed`."""
    states = ("complete", "pruned", "failed", "killed", "running", "waiting")
    counts = {state: sum(r.state == state for r in rows) for state in states}
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "no trials"


def write_csv(rows: Sequence[Row], space: Space, path: Path) -> None:
    """All trials, one a line, killed ones included."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["number", "state", "held_out", "seconds", "folder", "why", *space.kinds])
    for r in rows:
        said = space.said(r.values) if r.values.keys() == space.kinds.keys() else {}
        known = [r.number, r.state, "" if r.held_out is None else repr(r.held_out), round(r.seconds, 1), r.folder]
        writer.writerow([*known, r.why, *(said.get(name, "") for name in space.kinds)])
    write_file(path, text.getvalue())


@dataclass(frozen=True)
class Verdict:
    """The best recipe beside the default one, at seeds that played no part in choosing it.

    Attributes:
        gap: mean held-out loss of the default less that of the best.
        least: the gap that chance alone would exceed in one case of forty.
    """

    gap: float
    least: float

    @property
    def better(self) -> bool:
        """Whether the best is better by more than the noise between seeds."""
        return self.gap > self.least

    def __str__(self) -> str:
        noise = f"the noise between seeds makes gaps up to {self.least:.5f}"
        if self.better:
            return f"the best beats the default by {self.gap:.5f}; {noise}: it is better"
        side = "below" if self.gap >= 0 else "above"
        return f"the best lies {abs(self.gap):.5f} {side} the default; {noise}: not told apart from it"


def verdict(default: Sequence[float], best: Sequence[float]) -> Verdict:
    """Student's test of two means with one variance, over seeds, one-sided.

    Args:
        default: losses of the default recipe, one a seed.
        best: those of the best one, at seeds by which it was not chosen: the loss that made it the best is too good.
    """
    from scipy.stats import t

    n, m = len(default), len(best)
    free = n + m - 2
    squares = np.var(default) * n + np.var(best) * m
    error = math.sqrt(squares / free * (1 / n + 1 / m))
    return Verdict(float(np.mean(default) - np.mean(best)), float(t.ppf(SURE, free)) * error)


def plot(rows: Sequence[Row], space: Space, importance: Mapping[str, float], path: Path) -> None:
    """A panel a setting, the most important first: its values and the held-out loss; pruned trials on the upper edge."""
    from matplotlib.figure import Figure

    names = [*importance, *(name for name in space.kinds if name not in importance)]
    ranked, pruned = best_first(rows), [r for r in rows if r.state == "pruned"]
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    losses = [r.held_out for r in ranked if r.held_out is not None]
    low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.01
    for panel, name in zip(panels, names, strict=False):
        places = _places(space, name, [r for r in rows if name in r.values])
        panel.plot(
            [places[r.number] for r in pruned],
            [high + 2 * margin] * len(pruned),
            "x",
            color="0.6",
            label="pruned, no loss",
        )
        panel.plot([places[r.number] for r in ranked], [r.held_out for r in ranked], "o", color="C0", label="complete")
        for r, mark, colour, label in (
            *((r, "s", "black", "default") for r in ranked if r.values == space.origin()),
            *((r, "*", "C3", "best") for r in ranked[:1]),
        ):
            panel.plot(places[r.number], r.held_out, mark, color=colour, label=label, markersize=10, fillstyle="none")
        kind = space.kinds[name]
        if isinstance(kind, Range):
            _ruled(panel, kind)
        else:
            words = [_short(space.said({name: value})[name]) for value in kind.values]
            panel.set_xticks(range(len(words)), [w if len(w) < 16 else f"{w[:14]}…" for w in words])
            panel.set_xlim(-0.5, len(words) - 0.5)
        share = f"{importance[name]:.0%} of the spread" if name in importance else "importance not known"
        panel.set_title(f"{name}: {share}", fontsize=10)
        panel.set_ylim(low - margin, high + 3 * margin)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    few = " (too few to trust the shares)" if importance and len(ranked) < TRUSTED else ""
    figure.suptitle(f"{path.parent.name}: {tally(rows)}{few}", fontsize=10)
    panels[0].set_ylabel("held-out loss")
    panels[0].legend(fontsize=8, framealpha=0.6)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    write_file(path, picture.getvalue())


def _ruled(panel: Any, kind: Range) -> None:
    """The axis of a range; a logarithmic one has few marks, in plain numbers."""
    if not kind.log:
        return
    marks = [float(f"{m:.1g}") for m in np.geomspace(kind.low, kind.high, 4)]
    panel.set_xscale("log")
    panel.set_xticks(marks, [f"{m:g}" for m in marks])
    panel.set_xticks([], minor=True)
    panel.set_xlim(kind.low / 1.15, kind.high * 1.15)


def _places(space: Space, name: str, rows: Sequence[Row]) -> dict[int, float]:
    """Where each trial stands on the axis of a setting."""
    kind = space.kinds[name]
    if isinstance(kind, Range):
        return {r.number: float(r.values[name]) for r in rows}
    values: Sequence[Any] = kind.values
    return {r.number: float(values.index(r.values[name])) for r in rows}

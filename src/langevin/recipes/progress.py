"""progress.png: the losses over the steps, the learning rate, and the held-out loss by noise level as it fell."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

POINTS = 400
"""Of the curve of a run, at most; steps between two are averaged."""
INK, QUIET, SEEN, UNSEEN = "#222222", "#b8b8b8", "#3b75af", "#c8473a"


class Curve:
    """Loss and learning rate over the steps, in bounded memory: means over blocks of steps that grow with the run."""

    def __init__(self) -> None:
        self.width = 1
        self._blocks: list[list[float]] = []  # each: steps, sums of step, loss, learning rate

    def add(self, step: int, loss: float, lr: float) -> None:
        """A step more; one whose loss no logarithmic axis can show is left out."""
        if not 0 < loss < math.inf:
            return
        if not self._blocks or self._blocks[-1][0] >= self.width:
            if len(self._blocks) >= 2 * POINTS:
                self._blocks = np.reshape(self._blocks, (-1, 2, 4)).sum(1).tolist()
                self.width *= 2
            self._blocks.append([0.0] * 4)
        for k, value in enumerate((1, step, loss, lr)):
            self._blocks[-1][k] += value

    def points(self) -> np.ndarray:
        """(n, 3) step, loss and learning rate, means over blocks."""
        blocks = np.reshape(self._blocks, (-1, 4))
        points: np.ndarray = blocks[:, 1:] / blocks[:, :1]
        return points


def smooth(values: np.ndarray) -> np.ndarray:
    """Means over a tenth to either side of each place: the early part of a curve is as smooth as the late one."""
    place = np.arange(len(values))
    first, last = np.floor(0.9 * place).astype(int), np.minimum(np.ceil(1.1 * place).astype(int) + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    found: np.ndarray = (sums[last] - sums[first]) / (last - first)
    return found


def draw(curve: np.ndarray, looks: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """The picture as a PNG.

    Args:
        curve: (n, 3) step, loss, learning rate.
        looks: rows of looks, by step; none is fine.
        title: what is said above: the verdict.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(11, 4.6), dpi=100)
    FigureCanvasAgg(figure)
    losses, rates = figure.add_axes((0.065, 0.36, 0.53, 0.54)), figure.add_axes((0.065, 0.11, 0.53, 0.17))
    levels = figure.add_axes((0.67, 0.11, 0.315, 0.79))
    figure.text(0.065, 0.945, title, fontsize=11, color=INK)
    curve = curve[curve[:, 0] >= curve[-1:, 0].sum() / 200]
    step, loss, rate = curve.T
    losses.plot(step, loss, color=QUIET, lw=0.6, alpha=0.6)
    seen = [row for row in looks if "held_out" in row]
    both, at = [row for row in seen if "training" in row], [row["step"] for row in seen]
    name = "training, batch by batch" if both or not seen else "held-out items, raw weights"
    losses.plot(step, smooth(loss), color=QUIET, lw=1.8, label=name)
    if both:
        trained = [row["step"] for row in both], [row["training"] for row in both]
        losses.plot(*trained, "o-", ms=3, color=SEEN, label="training items, averaged weights")
    unseen = any("gap" in row or "training" not in row for row in seen)
    if unseen:
        held_out = [row["held_out"] for row in seen]
        losses.plot(at, held_out, "o-", ms=3, color=UNSEEN, label="held-out items, averaged weights")
        k = int(np.argmin(held_out))
        losses.plot(at[k], held_out[k], "o", ms=9, mfc="none", color=UNSEEN)
        losses.annotate(f"{held_out[k]:.4f}", (at[k], held_out[k]), (0, 8), textcoords="offset points", ha="center")
    losses.set(ylabel="loss", xscale="log", yscale="log")
    losses.tick_params(labelbottom=False)
    losses.legend(frameon=False, fontsize=9)
    rates.plot(step, rate, color=INK, lw=1.2)
    rates.set(xlabel="step", ylabel="learning rate", xscale="log", xlim=losses.get_xlim(), ylim=(0, None))
    shown = [seen[k] for k in sorted({0, len(seen) // 2, len(seen) - 1})] if seen else []
    for row, shade in zip(shown, (1.0, 0.6, 0.3)[: len(shown)][::-1], strict=True):
        levels.plot(row["ratios"], row["levels"], "o-", ms=3, color=UNSEEN, alpha=shade, label=f"step {row['step']:,}")
    if shown and "gap" in shown[-1]:
        levels.plot(shown[-1]["ratios"], shown[-1]["training_levels"], "--", color=SEEN, lw=1, label="training items")
    levels.set(xlabel="noise level (sigma / alpha)", ylabel="loss", xscale="log", yscale="log")
    if shown:
        levels.legend(frameon=False, fontsize=9, title="held-out" if unseen else None)
    for axes in (losses, rates, levels):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, lw=0.5)
    for axes in (losses, levels):
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()

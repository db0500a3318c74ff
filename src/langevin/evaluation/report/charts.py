"""Charts as SVG, drawn small, so that they can be read on a phone; their words stay text."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from langevin.evaluation.report.words import say

INK, QUIET, SEEN, UNSEEN = "#222222", "#b8b8b8", "#3b75af", "#c8473a"
SIZE = (4.6, 3.1)


def _axes() -> tuple[Any, Any]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    out = io.StringIO()
    plain: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "langevin", "font.family": "sans-serif"}
    with rc_context(plain), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # words stay text: the browser's fonts have them
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = out.getvalue()
    return text[text.index("<svg") :]


def losses(training: Mapping[str, Any], lang: str) -> str:
    """Loss over the steps: batches, training items, held-out items."""
    figure, axes = _axes()
    curve = [row for row in training["curve"] if row[1] is not None]
    if curve:
        axes.plot([r[0] for r in curve], [r[1] for r in curve], color=QUIET, lw=1, label=say(lang, "chart.batch"))
    for name, key, colour in (("training", "chart.seen", SEEN), ("held_out", "chart.unseen", UNSEEN)):
        rows = [look for look in training["looks"] if look.get(name) is not None]
        if rows:
            x, y = [r["step"] for r in rows], [r[name] for r in rows]
            axes.plot(x, y, "o-", ms=3, color=colour, label=say(lang, key))
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes)
    axes.set_xlabel(say(lang, "chart.step"))
    axes.set_ylabel(say(lang, "chart.loss.y"))
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def levels(training: Mapping[str, Any], lang: str) -> str:
    """The loss at each noise level, of held-out and of training items."""
    figure, axes = _axes()
    for name, key, colour in (("training_levels", "chart.seen", SEEN), ("levels", "chart.unseen", UNSEEN)):
        if training.get(name):
            axes.plot(training["ratios"], training[name], "o-", ms=3, color=colour, label=say(lang, key))
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(say(lang, "chart.sigma"))
    axes.set_ylabel(say(lang, "chart.loss.y"))
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def quality(rows: Sequence[Mapping[str, Any]], figure_name: str, x_log: bool, lang: str) -> str:
    """A figure over a setting, with its interval and its floor. Rows: x, and the figure's value, low, high, floor."""
    figure, axes = _axes()
    x = [row["x"] for row in rows]
    cells = [row["figures"][figure_name] for row in rows]
    axes.fill_between(x, [c["low"] for c in cells], [c["high"] for c in cells], color=SEEN, alpha=0.18, lw=0)
    axes.plot(x, [c["value"] for c in cells], "o-", ms=3, color=SEEN, label=say(lang, "chart.generated"))
    axes.plot(x, [c["floor"] for c in cells], "--", lw=1, color=INK, label=say(lang, "chart.floor"))
    if x_log:
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{v:g}" for v in x])
        axes.set_xticks([], minor=True)
    values = [c["value"] for c in cells if c["value"] > 0]
    if values and max(values) > 20 * min(values):
        axes.set_yscale("log")
        _plain_ticks(axes)
    axes.set_title(figure_name, fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axes.get_ylim()
    narrow = high / max(low, 1e-300) < 30
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def finite(value: Any) -> bool:
    """Whether it is a number that can be shown."""
    return isinstance(value, int | float) and math.isfinite(value)

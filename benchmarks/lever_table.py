"""The table of levers.py: means over seeds, and paired differences to the base with their error."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
Settings = dict[str, str]

SHOWN = {
    "held_out": (5, "↓"),
    "fd": (2, "↓"),
    "fd_pca": (3, "↓"),
    "kid": (2, "↓"),
    "precision": (4, "↑"),
    "recall": (4, "↑"),
    "label_acc": (4, "↑"),
    "frechet[gradients]": (2, "↓"),
    "kernel[gradients]": (4, "↓"),
    "label agreement[gradients]": (4, "↑"),
}
"""Figures that a table may show, with decimals and which way is better."""


def key(row: Mapping[str, Any]) -> str:
    """Of which run a line is."""
    return json.dumps([row["terms"], row["settings"], row["seed"]], sort_keys=True)


def figure(row: Row, name: str) -> float | None:
    """A figure of a run, held_out among them."""
    known = {"held_out": row.get("held_out"), **row.get("figures", {}), **row.get("quality", {})}
    return known.get(name)


def differences(runs: Mapping[int, Row], base: Mapping[int, Row], name: str) -> np.ndarray:
    """A figure's differences to the base, seed by seed where both have it."""
    pairs = [(figure(runs[seed], name), figure(base[seed], name)) for seed in sorted(runs.keys() & base.keys())]
    return np.array([own - other for own, other in pairs if own is not None and other is not None])


def pooled(each: Iterable[np.ndarray]) -> tuple[float, int]:
    """Standard deviation of differences about the mean of their own lever, over all levers, and its degrees of freedom."""
    some = [d for d in each if len(d) > 1]
    freedom = sum(len(d) - 1 for d in some)
    return (math.sqrt(sum(((d - d.mean()) ** 2).sum() for d in some) / freedom) if freedom else math.nan), freedom


def frame(row: Row) -> str:
    """What runs must have in common to be compared."""
    kept = ("terms", "machine", "code", "python", "torch", "langevin", "fingerprint", "yardstick")
    return json.dumps({name: row[name] for name in kept}, sort_keys=True)


def table(rows: Sequence[Row], name_of: Callable[[Settings], str], base: Settings, shown: Sequence[str] = ()) -> str:
    """Markdown: a table for each kind of runs that can be compared, and what did not run."""
    good = sorted((row for row in rows if "error" not in row), key=frame)
    said = [_table(list(some), name_of, base, shown) for _, some in groupby(good, key=frame)]
    ran = {key(row) for row in good}
    lost = {key(row): row for row in rows if "error" in row and key(row) not in ran}.values()
    return "\n\n".join([*said, *(f"- {name_of(r['settings'])}, seed {r['seed']}: {r['error']}" for r in lost)])


def _table(rows: Sequence[Row], name_of: Callable[[Settings], str], base: Settings, shown: Sequence[str]) -> str:
    """Of runs that can be compared, levers by their held-out loss."""
    levers: dict[str, dict[int, Row]] = {}
    for row in rows:
        levers.setdefault(name_of(row["settings"]), {})[row["seed"]] = row  # the later one counts
    there = [name for name in SHOWN if any(figure(row, name) is not None for row in rows)]
    usual = ["held_out", *(["fd", "kid", "label_acc"] if "fd" in there else there[1:])]
    names = [name for name in shown or usual if name in there]
    plain = levers.get("base", {})
    apart = {lever: {name: differences(runs, plain, name) for name in names} for lever, runs in levers.items()}

    def mean(runs: Mapping[int, Row], name: str) -> float:
        known = [value for row in runs.values() if (value := figure(row, name)) is not None]
        return float(np.mean(known)) if known else math.nan

    def cell(lever: str, name: str) -> str:
        decimals, d = SHOWN[name][0], apart[lever][name]
        text = f"{mean(levers[lever], name):.{decimals}f}"
        if lever == "base" or not len(d):
            return text
        error = f" ± {d.std(ddof=1) / math.sqrt(len(d)):.{decimals}f}" if len(d) > 1 else ""
        return f"{text} ({d.mean():+.{decimals}f}{error})"

    def line(lever: str) -> str:
        runs = levers[lever].values()
        numbers = [round(float(np.mean([row[k] for row in runs]))) for k in ("steps", "pictures")]
        seeds = " ".join(map(str, sorted(levers[lever])))
        cells = [lever, seeds, *(f"{n:,}" for n in numbers), *(cell(lever, name) for name in names)]
        return f"| {' | '.join(cells)} |"

    def scatter(name: str) -> str:
        value, freedom = pooled(each[name] for lever, each in apart.items() if lever != "base")
        return f"± {value:.{SHOWN[name][0]}f} ({freedom})" if freedom else ""

    first, terms = rows[0], rows[0]["terms"]
    load = "one run at a time" if terms["at_once"] == 1 else f"{terms['at_once']} runs at once"
    days = sorted({row["when"][:10] for row in rows})
    title = (
        f"{Path(terms['data']).name} ({first['fingerprint']}), {terms['minutes']:g} min, {terms['samples']:,} samples; base: "
        f"`{' '.join(f'{k}={v}' for k, v in base.items()) or 'the default recipe'}`\n"
        f"{load}, {terms['threads']} thread{'s' * (terms['threads'] > 1)} each, on {first['machine']}; "
        f"langevin {first['langevin']} (code {first['code']}), torch {first['torch']}, Python {first['python']}; "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}\n"
        f"held_out under {first['yardstick']}"
    )
    head = ["lever", "seeds", "steps", "pictures", *(f"{name} {SHOWN[name][1]}" for name in names)]
    order = sorted(levers, key=lambda lever: mean(levers[lever], "held_out"))
    last = ["one seed's difference scatters by (degrees of freedom)", "", "", "", *(scatter(name) for name in names)]
    lines = [
        title,
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *map(line, order),
        f"| {' | '.join(last)} |",
    ]
    return "\n".join(lines)

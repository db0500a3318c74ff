"""What was found in the data, in plain lines; a sheet of pictures to look at; the list of what was left out."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from langevin.data.dataset import Audit, Dataset
from langevin.data.sanity import remarks
from langevin.data.show import grid
from langevin.errors import UsageError
from langevin.words import counted

_DEPTH = {"uint8": "8 bits", "uint16": "16 bits", "float32": "floating point"}
_NAMED = 5  # examples given of each kind


def report(dataset: Dataset) -> str:
    """The audit as lines that a person reads."""
    return "\n".join(_lines(dataset, dataset.audit))


def _lines(dataset: Dataset, audit: Audit) -> Iterator[str]:
    height, width, channels = audit.shape
    kind = {1: "grey", 3: "RGB", 4: "RGBA" if audit.transparency else "4 channels"}.get(
        channels, f"{channels} channels"
    )
    yield f"source       {plain(audit.source)} ({audit.kind})"
    yield f"items        {len(dataset):,} of {width}x{height}, {kind}, {_DEPTH.get(audit.dtype, audit.dtype)}"
    held = int(dataset.held_out.sum())
    yield (
        f"split        {len(dataset) - held:,} to train on, {held:,} held out "
        + ("as the source says" if audit.official_split else "by their contents")
    )
    if len(audit.sizes) > 1:
        most = sorted(audit.sizes.items(), key=lambda item: -item[1])
        yield f"found sizes  {_first([f'{size} ({n:,})' for size, n in most], len(most))}"
    ranges = [f"{low:g} to {high:g}" for low, high in zip(audit.low, audit.high, strict=True)]
    yield f"levels       {ranges[0] if len(set(ranges)) == 1 else '; '.join(ranges[:8])}"
    low, high = audit.model_range
    yield f"model range  {low:g} to {high:g} becomes -1 to 1"
    if dataset.classes:
        counts = [f"{plain(name)} ({n:,})" for name, n in audit.class_counts.items()]
        yield f"classes      {len(dataset.classes):,}: {_first(counts, len(counts), 20)}"
        few = [name for name, n in audit.class_counts.items() if n < 10]
        if few:
            have = counted(len(few), "class has", "classes have")
            yield f"  warning    {have} fewer than 10 items: {_first(map(plain, few), len(few))}"
    if (texts := dataset.columns.get("text")) is not None:
        filled = sum(bool(text.strip()) for text in texts)
        yield f"captions     {filled:,}, {len(set(texts)):,} different"
    if others := [name for name in dataset.columns if name not in ("label", "text")]:
        yield f"columns      {', '.join(map(plain, others))}"
    if audit.constant_channels:
        where = ", ".join(str(c) for c in audit.constant_channels)
        yield f"  warning    channel {where} is constant: nothing to learn from it"
    yield from (f"  warning    {plain(remark)}" for remark in remarks(dataset))
    equal = counted(audit.exact_duplicates, "repeats", "repeat")
    yield f"duplicates   {equal} another exactly, {counted(len(audit.near_duplicates), 'pair looks', 'pairs look')} alike"
    if audit.near_duplicates:
        pairs = [f"{plain(dataset.names[i])} ~ {plain(dataset.names[j])}" for i, j in audit.near_duplicates[:_NAMED]]
        yield f"             {_first(pairs, len(audit.near_duplicates))}"
    if audit.leaks:
        have = counted(audit.leaks, "pair, equal or alike, has", "pairs, equal or alike, have")
        yield f"  warning    {have} one side in training and the other held out"
    by_code = Counter(reject.code for reject in audit.rejects)
    yield f"rejected     {len(audit.rejects):,}" + (", see below" if by_code else "")
    for code, count in by_code.most_common():
        names = [f"{plain(r.name)} ({plain(r.detail)})" for r in audit.rejects if r.code == code]
        yield f"  {code:<17}{count:,}: {_first(names, count)}"
    if audit.ignored:
        kinds = [f"{n:,} {plain(kind)}" for kind, n in sorted(audit.ignored.items())]
        files = counted(sum(audit.ignored.values()), "file that is no picture", "files that are no pictures")
        yield f"ignored      {files}: {_first(kinds, len(kinds))}"
    for note in audit.notes:
        yield f"note         {plain(note)}"
    yield f"fingerprint  {dataset.fingerprint}"


def _first(names: Iterable[str], count: int, most: int = _NAMED) -> str:
    shown = [name for name, _ in zip(names, range(most), strict=False)]
    return ", ".join(shown) + (f", and {count - len(shown):,} more" if count > len(shown) else "")


def plain(text: str) -> str:
    """Text that a terminal shows as one line: what is no printable character is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:300])


def contact_sheet(dataset: Dataset, n: int = 64) -> Image.Image:
    """n items spread evenly over the set, class by class where there are classes, with their labels or captions."""
    labels, texts = dataset.columns.get("label"), dataset.columns.get("text")
    places = np.arange(len(dataset)) if labels is None else np.argsort(labels, kind="stable")
    chosen = places[np.linspace(0, len(places) - 1, min(n, len(places))).round().astype(int)]
    captions = None
    if labels is not None and dataset.classes:
        captions = [dataset.classes[labels[i]] if labels[i] >= 0 else "" for i in chosen]
    elif texts is not None:
        captions = [texts[i] for i in chosen]
    return grid(np.stack([dataset.items[i] for i in chosen]), captions=captions)


def write_rejects(dataset: Dataset, path: str | Path) -> Path:
    """rejects.csv: name, reason, detail. A spreadsheet takes no cell of it for a formula. Raises UsageError if it exists."""
    path = Path(path)
    try:
        with path.open("x", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["name", "reason", "detail"])
            table.writerows([_cell(field) for field in reject] for reject in dataset.audit.rejects)
    except FileExistsError:
        raise UsageError(
            "already there, and nothing is overwritten", where=str(path), help="choose another name"
        ) from None
    return path


def _cell(text: str) -> str:
    text = plain(text)
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text

"""How good are the pictures after so many minutes of wall clock on this machine? This library beside its peers, on grey idx sets.

    python benchmarks/race.py --data fashion-mnist/ --quality FOLDER_OF_quality.py --out race/ \\
        --minutes 1 3 10 30 --seeds 0 1 --peers-python peers/bin/python [--sides langevin diffusers-16 edm] [--threads 2]
    python benchmarks/race.py --out race/ --table
    python benchmarks/race.py --out race/ --plot race.png

Each (side, minutes, seed) is a fresh process, one after another. The budget is wall clock from the start of that process:
Python, imports, data and building the model are in it. Then the samples are drawn, which is not in the budget and has a column
of its own, and are scored by `quality.py SAMPLES.npz -n N` (any script that prints a JSON object of figures and knows --floor).
Each run appends a line to OUT/race.jsonl at once; a later call skips what is there, so that a race can be interrupted. A side
that fails leaves a line with its error and is tried again by the next call.

Sides: `langevin` is `langevin train DATA --minutes M` and `langevin sample RUN -n N`, no other option (but --seed and names), on
the training pictures without their labels; `langevin-conditional` the same with them, labels drawn as frequent as in the data.
No side sees the test files. The cache of decoded pictures is empty at each start. What the command does after its budget
(choosing an average, its own samples and figures) is in the column "whole". The peers and what was chosen for them are told in
race_peers.py; `PEER-16` is one with batches of 16 instead of 64, `PEER-bfloat16` one that multiplies in bfloat16.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OURS = ("langevin", "langevin-conditional")
PEERS = ("diffusers", "lucidrains", "smalldiffusion", "edm")
GRACE = 7200.0
"""Seconds beyond its budget after which a side has failed."""
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_ARENA_MAX": "1"}
"""glibc keeps what is freed, as ours asks it to."""
COLUMNS = {
    "train s": "train_s",
    "whole s": "whole_s",
    "sampling s": "sample_s",
    "steps": "steps",
    "pictures": "pictures",
}
Row = dict[str, Any]


def pair(data: Sequence[Path]) -> tuple[Path, Path | None]:
    """The training pictures among idx files or in a folder of them, and their labels."""
    files = [file for path in data for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    training = [file for file in files if not file.name.startswith(("t10k", "test"))]
    images = [file for file in training if "images" in file.name and "idx3" in file.name]
    labels = [file for file in training if "labels" in file.name and "idx1" in file.name]
    if len(images) != 1:
        raise SystemExit(f"error: {len(images)} files of training pictures (…images-idx3…) in {[str(p) for p in data]}")
    return images[0].absolute(), labels[0].absolute() if labels else None


def call(command: Sequence[str | Path], seconds: float = GRACE, **settings: Any) -> str:
    """What a program printed.

    Raises:
        RuntimeError: it failed, with its last line, or took longer.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, **settings)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise RuntimeError(f"exit code {done.returncode}: {said[-1].strip() if said else ''}")
    return done.stdout


def ours(side: str, minutes: float, seed: int, given: argparse.Namespace, target: Path) -> Row:
    """The command as a person types it."""
    import langevin

    images, labels = pair(given.data)
    wanted = [images, labels] if side.endswith("conditional") else [images]
    if None in wanted:
        raise RuntimeError("there are no labels beside the pictures")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        here = Path(folder)
        (here / "data").mkdir()
        for file in wanted:
            shutil.copyfile(file, here / "data" / file.name)
        settings = {"cwd": here, "env": environment(given.threads) | {"LANGEVIN_CACHE": str(here / "cache")}}
        command = [sys.executable, "-m", "langevin"]
        began, clock = time.time(), time.perf_counter()
        call([*command, "train", "data", "--minutes", minutes, "--seed", seed, "--out", "race"], **settings)
        whole = time.perf_counter() - clock
        run = here / "runs" / "race-1"
        clock = time.perf_counter()
        first = seed * given.samples
        call([*command, "sample", run, "-n", given.samples, "--seed", first, "--out", target], **settings)
        drawn = time.perf_counter() - clock
        trained = max(path.stat().st_mtime for path in (run / "checkpoints").rglob("*")) - began
        shutil.copyfile(run / "run.log", target.with_suffix(".log"))
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {
            "steps": max(row["step"] for row in rows),
            "pictures": max(row.get("samples", 0) for row in rows),
            "train_s": round(trained, 2),
            "whole_s": round(whole, 2),
            "sample_s": round(drawn, 2),
            "versions": {
                "langevin": langevin.__version__,
                "torch": importlib.metadata.version("torch"),
                "python": platform.python_version(),
            },
        }


def peer(side: str, minutes: float, seed: int, given: argparse.Namespace, target: Path) -> Row:
    name, *more = side.split("-")
    options: list[str | Path] = ["--steps", given.peers_steps] if given.peers_steps else []
    for word in more:
        options += ["--precision", word] if word == "bfloat16" else ["--batch", word]
    images, _ = pair(given.data)
    command = [
        given.peers_python,
        HERE / "race_peers.py",
        name,
        "--images",
        images,
        "--minutes",
        minutes,
        "--out",
        target,
    ]
    command += ["--samples", given.samples, "--seed", seed, "--threads", given.threads, *options]
    said = call([*command, "--began", repr(time.time())], 60 * minutes + GRACE, env=environment(given.threads) | KEEP)
    return json.loads(said.splitlines()[-1])


def environment(threads: int) -> dict[str, str]:
    return dict(os.environ) | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def score(given: argparse.Namespace, *what: str | Path) -> Row:
    said = call(
        [sys.executable, given.quality / "quality.py", *what, "-n", given.samples], env=environment(given.threads)
    )
    return json.loads(said.splitlines()[-1])


def key(row: Mapping[str, Any]) -> tuple[str, float, int]:
    return str(row["side"]), float(row["minutes"]), int(row["seed"])


def read(out: Path) -> list[Row]:
    file = out / "race.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def one(side: str, minutes: float, seed: int, given: argparse.Namespace) -> Row:
    """A run and its figures; where it failed, its error."""
    row: Row = {"side": side, "minutes": minutes, "seed": seed, "threads": given.threads, "samples": given.samples}
    row["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    target = given.out / "samples" / f"{side}-{minutes:g}min-{seed}.npz"
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)  # of an attempt that was cut off
    try:
        row |= (ours if side in OURS else peer)(side, minutes, seed, given, target)
        row["samples_per_s"] = round(given.samples / row["sample_s"], 1)
        row |= {"quality": score(given, target)}
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def race(given: argparse.Namespace) -> None:
    """Run what is not done yet, the shortest first."""
    given.out = given.out.absolute()
    given.out.mkdir(parents=True, exist_ok=True)
    floor = given.out / "floor.json"
    if not floor.exists():
        floor.write_text(json.dumps(score(given, "--floor")))
    done = {key(row) for row in read(given.out) if "error" not in row}
    for minutes in sorted(given.minutes):
        for seed in given.seeds:
            for side in given.sides:
                if (side, minutes, seed) in done:
                    continue
                row = one(side, minutes, seed, given)
                with (given.out / "race.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{side}, {minutes:g} min, seed {seed}: {row.get('error') or row['quality']}", flush=True)


def medians(rows: Sequence[Row]) -> dict[tuple[str, float], Row]:
    """By (side, minutes): the median of every number over the runs that succeeded, and `count`."""
    sound = {key(row): row for row in rows if "error" not in row}  # one a key, the last
    groups: dict[tuple[str, float], list[Row]] = {}
    for (side, minutes, _), row in sorted(sound.items(), key=lambda item: (item[0][1], item[0][0])):
        numbers = {name: row[name] for name in COLUMNS.values() if name in row}
        groups.setdefault((side, minutes), []).append(row["quality"] | numbers)
    return {
        at: {name: statistics.median(r[name] for r in group if name in r) for name in {n: 0 for r in group for n in r}}
        | {"count": len(group)}
        for at, group in groups.items()
    }


def words(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(rows: Sequence[Row], floor: Row) -> str:
    """Markdown: a row a side and budget, medians over the seeds; the floor last."""
    found = medians(rows)
    figures = [
        name
        for name in {n: 0 for row in (*(r["quality"] for r in rows if "quality" in r), floor) for n in row}
        if name != "n"
    ]
    shown = {name: name for name in figures} | COLUMNS
    cell = lambda row, name: words(row[name]) if name in row else ""  # noqa: E731
    lines = [f"| minutes | side | seeds | {' | '.join(shown)} |", "|---" * (3 + len(shown)) + "|"]
    for (side, minutes), row in found.items():
        cells = " | ".join(cell(row, name) for name in shown.values())
        lines.append(f"| {minutes:g} | {side} | {row['count']} | {cells} |")
    lines.append(f"| | real, unseen (the floor) | | {' | '.join(cell(floor, name) for name in shown.values())} |")
    done = {key(row) for row in rows if "error" not in row}
    failed = {key(row): row["error"] for row in rows if "error" in row and key(row) not in done}
    lines += [f"\nfailed: {side}, {minutes:g} min, seed {seed}: {why}" for (side, minutes, seed), why in failed.items()]
    return "\n".join(lines)


def plot(rows: Sequence[Row], floor: Row, target: Path) -> None:
    """fd over minutes, both logarithmic: a line a side through the medians, a point a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = medians(rows)
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for k, side in enumerate(dict.fromkeys(side for side, _ in found)):
        colour, line = f"C{k}", [(minutes, row["fd"]) for (name, minutes), row in found.items() if name == side]
        axes.plot(*zip(*line, strict=True), color=colour, label=side, lw=2 if side in OURS else 1.2)
        runs = [(row["minutes"], row["quality"]["fd"]) for row in rows if row["side"] == side and "error" not in row]
        axes.scatter(*zip(*runs, strict=True), color=colour, s=14)
    axes.axhline(floor["fd"], color="grey", ls="--", label="real, unseen pictures")
    times = sorted({minutes for _, minutes in found})
    axes.set(xscale="log", yscale="log", xlabel="minutes of wall clock for training", ylabel="fd (lower is better)")
    axes.set_xticks(times, [f"{minutes:g}" for minutes in times])
    axes.minorticks_off()
    lowest, highest = floor["fd"], max(row["fd"] for row in found.values())
    ticks = [m * 10**e for e in range(-2, 5) for m in (1, 2, 5) if lowest / 2 <= m * 10**e <= 1.1 * highest]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.grid(alpha=0.3)
    figure.legend(frameon=False, loc="outside right center")
    figure.savefig(target, dpi=120)


def side_name(text: str) -> str:
    name, *more = text.split("-")
    if text in OURS or (name in PEERS and all(word == "bfloat16" or word.isdigit() for word in more)):
        return text
    raise argparse.ArgumentTypeError(
        f"`{text}` is none of {', '.join((*OURS, *PEERS))}, the latter with -BATCH or -bfloat16"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", help="folder of idx files, or the files")
    parser.add_argument("--quality", type=Path, help="folder of quality.py")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 3.0, 10.0, 30.0])
    parser.add_argument("--sides", type=side_name, nargs="+", default=[*OURS, *PEERS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--peers-steps", type=int, help="of the peers' samplers, for trials; their own where not given")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(arguments)
    if given.table or given.plot:
        rows, floor = read(given.out), json.loads((given.out / "floor.json").read_text())
        if given.table:
            print(table(rows, floor))
        if given.plot:
            plot(rows, floor, given.plot)
        return
    if given.data is None or given.quality is None:
        parser.error("a race needs --data and --quality")
    race(given)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a side does not outlive the race
    main()

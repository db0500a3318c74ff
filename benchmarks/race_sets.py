"""The same command, untouched, on any set of pictures, beside diffusers' recipe at equal time, by this library's own figures.

    python benchmarks/race_sets.py PATH [PATH ...] --out FOLDER --peers-python peers/bin/python
        [--minutes 10] [--sides langevin diffusers-16 edm] [--samples 1000] [--threads 2]

For each PATH (whatever `langevin train` takes) every side learns from the same training items, one after another, for the same wall
clock from the start of its process, and then draws as many samples. `langevin` is the command without labels, as the peers have
none; `langevin-conditional` the command as it is. What the peers are is told in race_peers.py. Figures are those of `langevin train`:
samples against all training items, and what as many held-out items, that nobody saw, give (the floor). FOLDER/sets.jsonl gets a line a
side at once, FOLDER/samples its pictures and a sheet; what stands there without an error is not run again. --table prints markdown.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from langevin import data
from langevin.data.dataset import Dataset
from langevin.data.show import grid
from levers import own_figures
from race import GRACE, KEEP, OURS, call, environment, side_name

Row = dict[str, Any]


def ours(side: str, path: Path, given: argparse.Namespace, target: Path) -> Row:
    with tempfile.TemporaryDirectory(dir=target.parent) as here:
        settings = {"cwd": here, "env": environment(given.threads) | {"LANGEVIN_CACHE": str(Path(here, "cache"))}}
        command = [sys.executable, "-m", "langevin"]
        more = [] if side.endswith("conditional") else ["--set", "data.labels=false"]
        call([*command, "train", path, "--minutes", given.minutes, "--out", "race", *more], **settings)
        run = Path(here, "runs", "race-1")
        begun = time.perf_counter()
        call([*command, "sample", run, "-n", given.samples, "--seed", 1_000_000, "--out", target], **settings)
        drawn = time.perf_counter() - begun
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        log = (run / "run.log").read_text()
    return {"steps": max(row["step"] for row in rows), "sample_s": round(drawn, 1), "log": log}


def peer(side: str, dataset: Dataset, given: argparse.Namespace, target: Path) -> Row:
    name, *more = side.split("-")
    options: list[str | Path] = []
    for word in more:
        options += ["--precision", word] if word == "bfloat16" else ["--batch", word]
    with tempfile.TemporaryDirectory(dir=target.parent) as here:
        images = Path(here, "images.npy")
        np.save(images, dataset.take(dataset.train_indices))
        command = [
            given.peers_python,
            Path(__file__).with_name("race_peers.py"),
            name,
            "--images",
            images,
            "--out",
            target,
        ]
        command += ["--minutes", given.minutes, "--samples", given.samples, "--threads", given.threads, *options]
        limit = 60 * given.minutes + GRACE
        said = call([*command, "--began", repr(time.time())], limit, env=environment(given.threads) | KEEP)
    return json.loads(said.splitlines()[-1])


def one(side: str, path: Path, dataset: Dataset, given: argparse.Namespace) -> Row:
    target = given.out / "samples" / f"{path.stem}-{side}.npz"
    target.unlink(missing_ok=True)
    row: Row = {"set": path.stem, "side": side, "minutes": given.minutes, "threads": given.threads}
    try:
        row |= ours(side, path, given, target) if side in OURS else peer(side, dataset, given, target)
        with np.load(target) as made:
            images = made["images"]
        images = images if images.ndim == 4 else images[..., None]
        grid(images[:64], columns=8).save(target.with_suffix(".png"))
        found = own_figures(dataset, images, None)
        row |= {"figures": {f.name: f.value for f in found}, "floors": {f.name: f.floor for f in found}}
    except (RuntimeError, ValueError, KeyError, OSError, subprocess.SubprocessError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def read(out: Path) -> list[Row]:
    file = out / "sets.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: list[Row]) -> str:
    sound = [row for row in rows if "error" not in row]
    names = list({name: 0 for row in sound for name in row["figures"]})
    lines = [f"| set | minutes | side | steps | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for name in {row["set"]: 0 for row in sound}:
        of_set = [row for row in sound if row["set"] == name]
        for row in of_set:
            cells = " | ".join(f"{row['figures'].get(n, float('nan')):.4g}" for n in names)
            lines.append(f"| {name} | {row['minutes']:g} | {row['side']} | {row['steps']:,} | {cells} |")
        floor = " | ".join(f"{of_set[0]['floors'].get(n) or float('nan'):.4g}" for n in names)
        lines.append(f"| {name} | | real, unseen (the floor) | | {floor} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sides", type=side_name, nargs="+", default=["langevin", "diffusers-16"])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    given.out = given.out.absolute()
    (given.out / "samples").mkdir(parents=True, exist_ok=True)
    if given.table:
        return print(table(read(given.out)))
    done = {(row["set"], row["side"], row["minutes"]) for row in read(given.out) if "error" not in row}
    for path in given.paths:
        dataset = data.open(path.absolute())
        for side in given.sides:
            if (path.stem, side, given.minutes) in done:
                continue
            row = one(side, path.absolute(), dataset, given)
            with (given.out / "sets.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{path.stem}, {side}: {row.get('error') or row['figures']}", flush=True)


if __name__ == "__main__":
    main()

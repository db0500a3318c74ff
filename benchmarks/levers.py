"""Levers of the training recipe: each against a base, at equal wall clock, on one yardstick.

    python benchmarks/levers.py DATA --out FOLDER [--minutes 3] [--base 'SETTINGS'] [--try LEVER ...] [--seeds 0 1]
                                     [--pairs-at-once 2] [--threads N] [--samples 2000] [--quality FOLDER_OF_quality.py]
    python benchmarks/levers.py --out FOLDER [--base 'SETTINGS'] --table
    python benchmarks/levers.py --list

A lever is a name from the list (`--list`; `--try all` is every one of them) or settings as `langevin train --set` takes them,
several with blanks between: 'optimizer.name=muon optimizer.lr=4e-3'. They are laid over those of the base.

Every run is a fresh process with cores of its own that trains as `langevin train --minutes` does: same session, looks,
previews and checkpoints, same choice among averages at the end. The minutes begin when the data are read. With --pairs-at-once 2
two runs go side by side, the next two begin when both are done, and with every other seed each run changes sides, so that all
suffer the same load; with 1 they go one after the other on all cores.

What every run is measured by does not depend on what it changed:
  held_out   the loss on the same 1,024 held-out items at the same eight noise levels with the same noise, under the DEFAULT
             recipe's time law (log-normal) and weight (Karras), whatever the run trained on: levels are sigma / alpha, so
             another schedule is asked at the same ones. 1 is an untrained network of the default parametrization.
  figures    of samples with the same seeds, as `langevin train` gives them, against all training items; --quality adds those
             of that folder's quality.py (2,000 samples at least).

FOLDER/levers.jsonl gets a line a run as soon as it is measured; what stands there without an error is not run again, so that
the same command goes on after a stop, and more seeds or levers come to what is there. FOLDER/code is a copy of the package
made at first: all runs of a folder are of one code, though somebody may be changing it. FOLDER/runs keeps each run's model,
samples, previews and metrics, without checkpoints.

The table gives means over seeds and, in brackets, the mean difference to the base's run of the same seed with its standard
error over seeds. Two seeds hardly tell an error: the last row pools the scatter of one seed's difference over all levers.
Runs that differ in data, minutes, threads, load, samples, code or machine are never compared: each gets a table of its own.
"""

import argparse
import dataclasses
import datetime
import hashlib
import importlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

import langevin
from langevin.data.dataset import Dataset
from langevin.errors import LangevinError
from langevin.evaluation.figures import Figure, figures
from langevin.evaluation.labels import label_agreement
from langevin.evaluation.noise_levels import held_out_loss
from langevin.model import Model
from langevin.recipes import averages, folders, plan, provenance, resume
from langevin.recipes.asked import config_of
from langevin.recipes.console import Console
from langevin.recipes.first import first_batch
from langevin.recipes.judge import Measure
from langevin.recipes.reading import read
from langevin.recipes.session import Session
from langevin.recipes.signals import StopRequest
from lever_table import SHOWN, Row, Settings, key, table

LEVERS = {
    "muon": "optimizer.name=muon",
    "muon, half the rate": "optimizer.name=muon optimizer.lr=1e-3",
    "muon, twice the rate": "optimizer.name=muon optimizer.lr=4e-3",
    "muon, 4 times the rate": "optimizer.name=muon optimizer.lr=8e-3",
    "lion": "optimizer.name=lion",
    "lion, twice the rate": "optimizer.name=lion optimizer.lr=4e-4",
    "half the rate": "optimizer.lr=1e-3",
    "twice the rate": "optimizer.lr=4e-3",
    "linear decay": "optimizer.decay=linear",
    "no decay": "optimizer.decay=constant",
    "inverse root decay": "optimizer.decay=inverse_sqrt",
    "held for half": "optimizer.hold=0.5",
    "short warm-up": "optimizer.warmup=0.005",
    "long warm-up": "optimizer.warmup=0.1",
    "longer memory": "optimizer.betas=[0.9,0.999]",
    "weight decay": "optimizer.weight_decay=0.01",
    "no clipping": "optimizer.clip=.inf",
    "batch 8": "batch=8",
    "batch 16": "batch=16",
    "batch 64": "batch=64",
    "batch 128": "batch=128",
    "narrower": "network.widths=[48,96]",
    "wider": "network.widths=[96,192]",
    "wider below": "network.widths=[64,192]",
    "a level more": "network.widths=[64,128,128] network.attention=[2]",
    "fewer blocks": "network.blocks=1",
    "more blocks": "network.blocks=3",
    "patch 1": "network.patch=1",
    "patch 1, narrow": "network.patch=1 network.widths=[16,32,64] network.attention=[2]",
    "patch 4": "network.patch=4",
    "no attention": "network.attention=[]",
    "attention everywhere": "network.attention=[0,1]",
    "smaller heads": "network.head=32",
    "larger embedding": "network.features=512",
    "dropout in the network": "network.dropout=0.1",
    "v": "parametrization.name=v",
    "x0": "parametrization.name=x0",
    "eps": "parametrization.name=eps",
    "flow": "schedule.name=flow parametrization.name=flow weight.name=flow times.name=logit_normal",
    "flow, uniform times": "schedule.name=flow parametrization.name=flow weight.name=flow times.name=uniform",
    "DDPM": "schedule.name=vp_linear parametrization.name=eps weight.name=snr times.name=uniform",
    "cosine v": "schedule.name=cosine parametrization.name=v weight.name=v times.name=uniform",
    "less noise": "times.mean=-1.6",
    "more noise": "times.mean=-0.8",
    "narrower times": "times.std=1.0",
    "wider times": "times.std=1.4",
    "loss-aware times": "times.name=loss_aware",
    "min-SNR": "weight.name=min_snr",
    "P2": "weight.name=p2",
    "sigmoid": "weight.name=sigmoid",
    "learned uncertainty": "uncertainty=true",
    "narrower averages": "ema=[0.03,0.06]",
    "wider averages": "ema=[0.1,0.2]",
    "labels always": "dropout=0",
    "labels dropped more": "dropout=0.2",
    "mirrored": "data.flip=true",
    "float32": "precision=float32",
    "bfloat16": "precision=bfloat16",
    "channels last": "channels_last=true",
    "compiled": "compile=true",
}
"""Name -> settings, around the default for pictures of about 28 x 28. Threads are a lever by --threads, in tables of their own."""

ITEMS = 1024
"""Held-out items that the loss is measured on, at most."""
FIRST_SEED = 1_000_000
"""Of the samples, as in a run."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """What is asked of all runs that are to be compared."""

    data: str
    minutes: float
    threads: int
    at_once: int
    samples: int
    quality: bool


@dataclasses.dataclass(frozen=True)
class Job:
    """One run."""

    settings: Settings
    seed: int
    cores: list[int]


def settings_of(*texts: str) -> Settings:
    """Settings, or names from the list, each laid over those before it. Raises ValueError."""
    found: Settings = {}
    for text in texts:
        for part in shlex.split(LEVERS.get(text, text)):
            name, equals, value = part.partition("=")
            if not equals:
                raise ValueError(f"`{text}` is no lever: neither a name from the list nor NAME=VALUE")
            found[name] = value.replace(" ", "")
    return dict(sorted(found.items()))


def lever_of(settings: Settings, base: Settings) -> str:
    """What makes these settings of the base's, in words where there are any."""
    apart = {k: v for k, v in settings.items() if base.get(k) != v}
    apart |= {k: "(default)" for k in base if k not in settings}
    text = " ".join(f"{k}={v}" for k, v in apart.items())
    names = [name for name, given in LEVERS.items() if settings_of(given) == apart]
    return f"{names[0]}: `{text}`" if names else f"`{text}`" if text else "base"


# ---- a run, in a process of its own


def measured(session: Session, model: Model, dataset: Dataset) -> Row:
    """The loss on held-out items under the default recipe's law and weight."""
    common, rows = Measure(session.config, dataset), dataset.held_out_indices
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), ITEMS)).astype(int)]
    level = held_out_loss(model.denoiser, *session.feed.items(rows), common.law, common.weight)
    yardstick = f"{common.law}, {common.weight}, {len(rows):,} items"
    return {"held_out": level.mean, "ratios": level.ratios, "levels": level.losses, "yardstick": yardstick}


def own_figures(dataset: Dataset, items: np.ndarray, labels: np.ndarray | None) -> list[Figure]:
    """The project's own, of items with their channel axis."""
    train, unseen = dataset.train_indices, dataset.held_out_indices
    made = figures(dataset.take(train), dataset.take(unseen), items)
    if labels is not None:
        column = dataset.columns["label"]
        train, unseen = (rows[column[rows] >= 0] for rows in (train, unseen))
        real = dataset.take(train), column[train], dataset.take(unseen), column[unseen]
        made.append(label_agreement(*real, items, labels))
    return made


def sampled(model: Model, dataset: Dataset, samples: int, quality: Path | None, folder: Path) -> Row:
    """Figures of samples, which are kept."""
    seeds, begun = range(FIRST_SEED, FIRST_SEED + samples), time.perf_counter()
    images, labels = model.sample(seeds=seeds), model.labels(seeds)
    seconds = time.perf_counter() - begun
    np.savez(folder / "samples.npz", images=images, **({} if labels is None else {"labels": labels}))
    made = own_figures(dataset, images[..., None] if getattr(model.codec, "squeeze", False) else images, labels)
    facts = {"figures": {f.name: f.value for f in made}, "floors": {f.name: f.floor for f in made}}
    if quality:
        sys.path.insert(0, str(quality))
        facts["quality"] = importlib.import_module("quality").score(images, labels)
    return {"sampling_seconds": round(seconds, 1), **facts}


def digest() -> str:
    """Of the package's code."""
    root, found = Path(langevin.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def machine() -> str:
    """The processor, or the accelerator."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    named = (
        re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    return f"{named[1] if named else platform.machine()}, {os.cpu_count()} cores"


def train(terms: Terms, job: Job, quality: Path | None, runs: Path) -> Row:
    """Train and measure: the facts of a run."""
    stop, given = StopRequest(), {"minutes": terms.minutes, "seed": job.seed}
    with Console("quiet") as console:
        config = config_of(terms.data, None, job.settings, given, {})
        dataset = read(config, console, stop)
        if len(dataset.held_out_indices) < 2:
            raise ValueError("nothing is held out of these data: there is nothing to compare on")
        config = plan.resolve(config, dataset)
        plan.check(config, dataset)
        slug = re.sub(r"[^\w.]+", "-", "-".join(f"{k}-{v}" for k, v in job.settings.items())).strip("-")[:80]
        folder = folders.new(runs, f"{slug or 'default'}-seed-{job.seed}")
        provenance.begin(folder, dataset)
        resume.keep(folder, config)
        console.keep_log(folder / "run.log")
        session = Session(folder, config, dataset, console, stop, time.perf_counter(), (first_batch,))
        session.learn()
        model = session.averaged_model()
        model.save(folder / "model")
        for heavy in ("checkpoints", "ema"):
            shutil.rmtree(folder / heavy, ignore_errors=True)
        facts = {
            "run": folder.name,
            "steps": session.state.step,
            "pictures": session.state.step * session.feed.batch,
            "seconds": round(session.state.elapsed, 1),
            "parameters": sum(p.numel() for p in session.state.network.parameters()),
            "precision": config.precision,
            "average": str(averages.best(session.measured).average),
            **measured(session, model, dataset),
        }
        facts |= sampled(model, dataset, terms.samples, quality, folder) if terms.samples else {}
    return {**facts, "fingerprint": dataset.fingerprint[:16]}


def one(terms: Terms, job: Job, quality: Path | None, out: Path) -> None:
    """Train, measure, and write the line."""
    if hasattr(os, "sched_setaffinity") and job.cores:
        os.sched_setaffinity(0, job.cores)
    torch.set_num_threads(terms.threads)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "langevin": langevin.__version__}
    row: Row = {"terms": dataclasses.asdict(terms), "settings": job.settings, "seed": job.seed, "cores": job.cores}
    row |= {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "machine": machine()}
    row |= {"code": digest(), **versions}
    try:
        row |= train(terms, job, quality, out / "runs")
    except (LangevinError, ValueError, RuntimeError, ArithmeticError, AssertionError) as error:
        row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    with (out / "levers.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    told = row.get("error") or f"{row['steps']:,} steps, held-out {row['held_out']:.5f}"
    print(f"seed {job.seed}  {' '.join(f'{k}={v}' for k, v in job.settings.items()) or 'default'}: {told}", flush=True)


# ---- all runs


def read_rows(out: Path) -> list[Row]:
    """The lines so far; one that was being written when a process was killed does not count."""
    path, rows = out / "levers.jsonl", []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def left(
    terms: Terms, wanted: Iterable[Settings], seeds: Sequence[int], rows: Iterable[Row]
) -> list[tuple[Settings, int]]:
    """What is still to be run, each once: with every other seed backwards, so that sides are changed."""
    asked, done = dataclasses.asdict(terms), {key(row) for row in rows if "error" not in row}
    each = list({json.dumps(settings): settings for settings in wanted}.values())
    order = [(settings, seed) for k, seed in enumerate(seeds) for settings in each[:: -1 if k % 2 else 1]]
    return [(s, seed) for s, seed in order if key({"terms": asked, "settings": s, "seed": seed}) not in done]


def run_all(terms: Terms, wanted: Sequence[Settings], seeds: Sequence[int], quality: Path | None, out: Path) -> None:
    """Everything that is left, side by side. A process that dies leaves no line, and the others go on."""
    code = out / "code" / "langevin"
    if not code.exists():
        shutil.copytree(Path(langevin.__file__).parent, code, ignore=shutil.ignore_patterns("__pycache__"))
    jobs = left(terms, wanted, seeds, read_rows(out))
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = max(1, len(cores) // terms.at_once)
    environment = {**os.environ, "PYTHONPATH": str(code.parent), "OMP_NUM_THREADS": str(terms.threads)}
    print(
        f"{len(jobs)} runs of {terms.minutes:g} min, {terms.at_once} at once with {terms.threads} threads each",
        flush=True,
    )
    for first in range(0, len(jobs), terms.at_once):
        begun: list[subprocess.Popen[bytes]] = []
        try:
            for side, (settings, seed) in enumerate(jobs[first : first + terms.at_once]):
                job = Job(settings, seed, cores[side * share : (side + 1) * share])
                task = [dataclasses.asdict(terms), dataclasses.asdict(job), quality and str(quality), str(out)]
                begun.append(subprocess.Popen([sys.executable, __file__, "--one", json.dumps(task)], env=environment))
            for process in begun:
                if process.wait():
                    print(
                        f"a run ended with exit code {process.returncode}: the same command tries it again", flush=True
                    )
        finally:
            for process in begun:
                process.terminate()


def tabled(rows: Sequence[Row], base: Settings, shown: Sequence[str] = ()) -> str:
    """The table of all lines, as markdown."""
    return table(rows, lambda settings: lever_of(settings, base), base, shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="what to train on, as for `langevin train`")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--base", default="")
    parser.add_argument("--try", dest="levers", action="extend", nargs="+", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--pairs-at-once", type=int, choices=(1, 2), default=2)
    parser.add_argument("--threads", type=int, help="of each run; its share of the cores where it is not given")
    parser.add_argument("--samples", type=int, default=2000, help="0 for the held-out loss alone")
    parser.add_argument("--quality", type=Path)
    parser.add_argument("--figures", nargs="+", choices=list(SHOWN), default=[], help="columns of the table")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        terms, job, quality, out = json.loads(given.one)
        return one(Terms(**terms), Job(**job), quality and Path(quality), Path(out))
    if given.list:
        return print("\n".join(f"| {name} | `{settings}` |" for name, settings in LEVERS.items()))
    if given.out is None:
        parser.error("--out is missing")
    try:
        base = settings_of(given.base)
        wanted = [settings_of(given.base, lever) for lever in (LEVERS if given.levers == ["all"] else given.levers)]
    except ValueError as error:
        parser.error(str(error))
    if not given.table:
        if given.data is None:
            parser.error("DATA is missing")
        if given.quality and given.samples < 2000:
            parser.error("--quality wants 2,000 samples at least")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads, data = given.threads or max(1, cores // given.pairs_at_once), given.data
        data = str(Path(data).resolve()) if Path(data).exists() else data
        terms = Terms(data, given.minutes, threads, given.pairs_at_once, given.samples, given.quality is not None)
        given.out.mkdir(parents=True, exist_ok=True)
        run_all(terms, [base, *wanted], given.seeds, given.quality and given.quality.resolve(), given.out.resolve())
    print(tabled(read_rows(given.out), base, given.figures))


if __name__ == "__main__":
    main()

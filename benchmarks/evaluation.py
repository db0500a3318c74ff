"""What judging samples costs: figures with their floors and the audit for copies, part by part.

    python benchmarks/evaluation.py [--channels 1] [--count 10000] [--train 60000] [--threads 2] [--data PATH] [--only PART ...]

Judged are `count` pictures of 32 x 32 against `train` ones and `count` held-out ones. Without --data the pictures are smooth random
fields of ten classes, made from a seed, and one in a hundred of those judged is a training picture again with a little noise; with
--data they are those of the source, and what is judged is held-out items, noise added (so figures are no model's).

Every row is a fresh process that maps the pictures, as a run does, and takes features from a file where it needs them: seconds by the
clock, seconds of processors (user and system; other work on the machine disturbs them less), and the peak of resident memory,
which holds Python, torch and the pages of the pictures that were touched. `everything` is all of it in one process, as a person waits
for it. Prints markdown.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch

from langevin import data
from langevin.evaluation.copies import Pool
from langevin.evaluation.features import Features, Gradients, Pca, as_unit
from langevin.evaluation.figures import COPY_SEARCH, SPECTRUM_ITEMS, Yardstick, table
from langevin.evaluation.metrics.frechet import Frechet
from langevin.evaluation.metrics.kernel import Kernel
from langevin.evaluation.metrics.prdc import Prdc
from langevin.evaluation.metrics.spectrum import Spectrum, rings
from langevin.evaluation.neighbours import nearest

SIDE, WAVES, CLASSES = 32, 10, 10
SETS = ("train", "held_out", "made")


def fields(count: int, channels: int, seed: int, decay: float) -> np.ndarray:
    """(count, 32, 32, channels) uint8: a class's field and an item's own, of ten by ten waves whose heights fall off."""
    rng, common = np.random.default_rng(seed), np.random.default_rng(7)
    x, k = np.arange(SIDE), np.arange(WAVES)
    waves = np.cos(np.pi * (x[:, None] + 0.5) * k / SIDE) * np.exp(-decay * k)  # (32, 10)
    centers = common.normal(size=(CLASSES, WAVES, WAVES, channels))
    found = np.empty((count, SIDE, SIDE, channels), np.uint8)
    for start in range(0, count, 2000):
        part = found[start : start + 2000]
        heights = centers[rng.integers(CLASSES, size=len(part))] + 0.7 * rng.normal(
            size=(len(part), WAVES, WAVES, channels)
        )
        values = np.einsum("hi,nijc,wj->nhwc", waves, heights, waves, optimize=True)
        part[...] = np.clip(128 + 40 * values + rng.normal(0, 2, values.shape), 0, 255)
    return found


def noisy(items: np.ndarray, seed: int) -> np.ndarray:
    """A little noise on whole numbers."""
    noise = np.rint(np.random.default_rng(seed).normal(0, 2, items.shape))
    return np.clip(items + noise, 0, np.iinfo(items.dtype).max).astype(items.dtype)


def make(folder: Path, given: argparse.Namespace) -> None:
    """train.npy, held_out.npy and made.npy."""
    if given.data:
        source = data.open(given.data)
        train, held_out = (source.items[rows] for rows in (source.train_indices, source.held_out_indices))
        train, held_out = train[: given.train], held_out[: given.count]
        made = noisy(np.resize(held_out[::-1], (min(given.count, len(held_out)), *held_out.shape[1:])), 3)
    else:
        train, held_out = (fields(n, given.channels, seed, 0.25) for n, seed in ((given.train, 1), (given.count, 2)))
        made = fields(given.count, given.channels, 3, 0.27)
        made[::100] = noisy(train[: len(made[::100])], 4)
    for name, items in (("train", train), ("held_out", held_out), ("made", made)):
        np.save(folder / f"{name}.npy", items)


class Parts:
    """One method a row; `folder` holds the pictures, and the features once they were taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train, self.held_out, self.made = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in SETS)

    def nothing(self) -> None:
        """Imports, and pictures that are mapped but not read."""

    def features_pca(self) -> None:
        self._features(Pca)

    def features_gradients(self) -> None:
        self._features(Gradients)

    def _features(self, kind: type[Any]) -> None:
        """Fitted, and taken of all three sets."""
        features: Features = kind.fit(self.train, 64)
        for name in SETS:
            np.save(self.folder / f"{kind.name}-{name}.npy", features(getattr(self, name)))

    def _known(self, kind: type[Any]) -> list[np.ndarray]:
        found = [np.load(self.folder / f"{kind.name}-{name}.npy") for name in SETS]
        return [found[0][np.random.default_rng(1).permutation(len(found[0]))], *found[1:]]

    def _against_both(self, metric: Any, kind: type[Any]) -> None:
        train, *others = self._known(kind)
        for other in others:
            metric.measure(train, other)

    def frechet_pca(self) -> None:
        self._against_both(Frechet(), Pca)

    def frechet_gradients(self) -> None:
        self._against_both(Frechet(), Gradients)

    def kernel(self) -> None:
        self._against_both(Kernel(), Gradients)

    def prdc(self) -> None:
        self._against_both(Prdc(), Gradients)

    def spectrum(self) -> None:
        known = rings(as_unit(self.train[:SPECTRUM_ITEMS]))
        for other in (self.held_out, self.made):
            Spectrum().measure(known, rings(as_unit(other)))

    def nearest(self) -> None:
        """As the share of copies among the figures asks for."""
        for other in (self.held_out, self.made):
            nearest(other[:COPY_SEARCH], self.train)

    def figures(self) -> str:
        """The whole yardstick."""
        return table(Yardstick.of(self.train, self.held_out, len(self.made)).measure(self.made))

    def audit_pixels(self) -> str:
        return self._audit(None)

    def audit_gradients(self) -> str:
        """The features' fit with it."""
        return self._audit(Gradients.fit(self.train, 64))

    def _audit(self, features: Features | None) -> str:
        found = Pool(self.train, self.held_out, features).audit(self.made)
        return f"{found.space}: p = {found.p:.4f}, {len(found.named)} named, nearer {found.nearer:.3f} of {found.expected:.3f}"

    def everything(self) -> str:
        """Figures, and both audits with the features that the figures were taken in."""
        yardstick = Yardstick.of(self.train, self.held_out, len(self.made))
        shown = table(yardstick.measure(self.made))
        return "\n".join([shown, self._audit(None), self._audit(yardstick.features[-1])])


ROWS = [name for name in vars(Parts) if not name.startswith("_")]


def row(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """Run in the fresh process: the part's seconds, processor seconds and what it says."""
    torch.set_num_threads(threads)
    parts = Parts(folder)
    work: Callable[[], str | None] = getattr(parts, name)
    clock, cpu = time.perf_counter(), time.process_time()
    said = work()
    took, used = time.perf_counter() - clock, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": took, "cpu": used, "peak": peak, "said": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--train", type=int, default=60_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row and given.row[1] == "make":
        make(Path(given.row[0]), given)
        return
    if given.row:
        print(json.dumps(row(Path(given.row[0]), given.row[1], given.threads)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        # pictures are made in a process of their own too: a new process begins with the peak of the one that started it
        subprocess.run([sys.executable, *sys.argv, "--row", temporary, "make"], check=True)
        shapes = (f"{name} {np.load(Path(temporary) / f'{name}.npy', mmap_mode='r').shape}" for name in SETS)
        versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (torch, np, scipy))
        print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}, {given.threads} threads")
        print(f"{', '.join(shapes)}\n\n| part | seconds | CPU seconds | peak MiB | load |\n|---|---|---|---|---|")
        said = None
        for name in given.only:
            command = [sys.executable, __file__, "--row", temporary, name, "--threads", str(given.threads)]
            environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
            said = found["said"] or said
            cells = f"{found['wall']:.1f} | {found['cpu']:.1f} | {found['peak']:.0f} | {os.getloadavg()[0]:.1f}"
            print(f"| {name.replace('_', ', ')} | {cells} |", flush=True)
        print(f"\n{said}" if said else "")


if __name__ == "__main__":
    main()

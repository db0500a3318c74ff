"""`langevin evaluate`: how good samples are, with error bars and floors, whether they are copies, and one page that says so.

RUN/report.html    everything, readable in any browser, offline
RUN/report.json    the same as facts
"""

import dataclasses
import json
import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from langevin import __version__, store
from langevin.data.codec.pixels import Pixels
from langevin.errors import DataError, UsageError
from langevin.evaluation import classes, report
from langevin.evaluation.cached import Kept
from langevin.evaluation.copies import Audit, Pool
from langevin.evaluation.course import course
from langevin.evaluation.features import Features
from langevin.evaluation.figures import Figure, Yardstick, table
from langevin.evaluation.judgement import Beside, Said, compare, judge
from langevin.evaluation.labels import LabelJudge
from langevin.evaluation.learned import Learned, learn
from langevin.evaluation.likelihood import bits_per_dim
from langevin.evaluation.metrics.kernel import Kernel
from langevin.evaluation.metrics.prdc import Prdc
from langevin.evaluation.metrics.sliced_wasserstein import SlicedWasserstein
from langevin.evaluation.metrics.two_sample import TwoSample
from langevin.evaluation.pretrained import pretrained
from langevin.evaluation.pretrained.clip import Clip
from langevin.evaluation.report.words import say as in_words
from langevin.evaluation.texts import text_agreement
from langevin.model import locate
from langevin.recipes import exhibits, report_facts
from langevin.recipes.console import Console
from langevin.recipes.judged import FIRST_SEED, Judged, Real, is_model, items_of, real_of, run_of, samples_of
from langevin.recipes.outcome import sheet_of, with_axis
from langevin.recipes.plan import device
from langevin.recipes.signals import at_each_evaluation, stop_requests

LEAST, MOST = 256, 2_000
"""Generated items where nothing is said: as many as are held out, between these."""
METRICS = (Kernel(), Prdc(), SlicedWasserstein(), TwoSample())
BITS_ITEMS, BITS_FLOW = 128, 32
LEAST_TEXTS = 16
"""Captions on either side without which pictures are not held against them."""
COURSE = 5
"""Samples whose way from noise is shown."""


@dataclass(frozen=True)
class Evaluated:
    """What came out: the page's path, its facts (as in report.json), the figures, and the audits for copies."""

    path: Path
    report: dict[str, Any]
    figures: tuple[Figure, ...]
    audits: tuple[Audit, ...]


def evaluate(
    run: Path | None = None,
    other: Path | None = None,
    *,
    real: Path | None = None,
    generated: Path | None = None,
    n: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    features: Sequence[str] = (),
    quick: bool = False,
    lang: str = "en",
    out: Path | None = None,
    batch: int = 64,
    console: Console | None = None,
) -> Evaluated:
    """Judge samples and write the report.

    Args:
        run: a run or model folder, whose samples are judged.
        other: a second run or model, or a folder or file of pictures, to compare with.
        real: real pictures to hold against, in the place of the run's own data.
        generated: pictures to judge, with no model.
        n: how many generated items; where it is not given as many as are held out, 256 to 2,000. All are searched for copies;
            figures stand on no more than there are held-out items.
        seed: of all that is drawn at random; sample k has the seed 1,000,000 (1 + seed) + k.
        steps, guidance: as for `langevin sample`; the model's own where they are not given.
        features: "NAME=WEIGHTS" of pretrained networks: inception, dinov2, clip.
        quick: leave out what is learned for the figures, and the likelihood.
        lang: "en" or "zh".
        out: the page; RUN/report.html, or report.html here, and the next free name where one is there.

    Raises:
        UsageError: nothing to judge or to hold against. DataError: items of different kinds, or too few.
    """
    console = console or Console("auto")
    if lang not in ("en", "zh"):
        raise UsageError(f"there is no report in `{lang}`", help="use en or zh")
    if (run is None) == (generated is None):
        raise UsageError("give a run, or pictures with --generated", help="langevin evaluate RUN")
    if run is not None:
        locate(run)
    target = _target(out, run)
    began = time.perf_counter()
    with console, stop_requests() as stop:
        work = _Work(console, lambda: stop.heed("stopped while evaluating: nothing is written"), seed, batch)
        against = real_of(real, None if run is None else run_of(run), console, work.heed)
        wanted = min(max(len(against.held_out), LEAST), MOST) if n is None else n
        if wanted < 16:
            raise UsageError(f"{wanted} generated items say nothing", help="-n 16 or more; hundreds say more")
        made = work.judged(run if run is not None else generated, against, wanted, steps, guidance)
        beside = work.judged(other, against, wanted, steps, guidance) if other is not None else None
        found = work.measure(made, against, features, quick)
        facts = work.facts(found, made, against)
        pictures = work.pictures(found, made, against, facts)
        if beside is not None:
            theirs = work.figures(beside, against, found.yardstick, found.learned, quick)
            rows = compare(found.figures, theirs)
            facts["comparison"] = {
                "name": _apart(beside.name, made.name),
                "rows": [dataclasses.asdict(r) for r in rows],
            }
            facts["verdict"] = [*_compared(facts["comparison"]["name"], made.name, rows), *facts["verdict"]]
            pictures["samples-b"] = exhibits.samples(beside.items)
        facts["seconds"]["evaluation"] = time.perf_counter() - began
        facts["energy"] = report_facts.energy(facts["seconds"])
        facts["commands"] = _commands(run, other, real, generated, wanted, seed, lang)
        page = report.render(facts, pictures, lang)
        stop.heed("stopped while evaluating: nothing is written")
        store.write_file(target.with_suffix(".json"), json.dumps(facts, indent=1, ensure_ascii=False))
        store.write_file(target, page)
        _tell(console, facts, found.figures, target, lang)
        if made.run is not None:
            console.say(f"next       langevin curve {shlex.quote(str(made.run))} --over steps")
    return Evaluated(target, facts, found.figures, found.audits)


@dataclass(frozen=True)
class _Found:
    yardstick: Yardstick
    figures: tuple[Figure, ...]
    audits: tuple[Audit, ...]
    pool: Pool
    learned: Learned | None
    bits: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _Work:
    """One evaluation: what it says to, what ends it, what decides its luck."""

    console: Console
    heed: Callable[[], None]
    seed: int
    batch: int

    def judged(self, path: Path | None, real: Real, n: int, steps: int | None, guidance: float | None) -> Judged:
        assert path is not None
        if not is_model(path):
            return items_of(path, real, n, self.seed, self.console, self.heed)
        settings = {k: v for k, v in (("steps", steps), ("guidance", guidance)) if v is not None}
        first = FIRST_SEED * (1 + self.seed)
        return samples_of(
            path, n, seed=first, settings=settings, batch=self.batch, console=self.console, heed=self.heed
        )

    def measure(self, made: Judged, real: Real, features: Sequence[str], quick: bool) -> _Found:
        learned = None if quick else self._learn(real)
        extra: list[Features] = [learned] if learned else []
        for text in features:
            name, equals, weights = text.partition("=")
            if not equals:
                raise UsageError(
                    f"`{text}` names no weights", help="write NAME=PATH, such as inception=weights.safetensors"
                )
            extra.insert(0, pretrained(name, Path(weights), device=device()))
        self._say("features", 0.2)
        yardstick = Yardstick.of(
            real.train, real.held_out, len(made.items), self.seed, self.heed, extra, METRICS, Kept.usual()
        )
        figures = self.figures(made, real, yardstick, learned, quick)
        audits, pool = [], None
        for space in (None, yardstick.features[-1]):
            self._say("copies", 0.7)
            pool = Pool(real.train, real.held_out, space, self.seed)
            audits.append(pool.audit(made.items))
            self.heed()
        assert pool is not None
        bits = () if quick or made.model is None else self._bits(made, real)
        self.console.done()
        return _Found(yardstick, figures, tuple(audits), pool, learned, bits)

    def _say(self, what: str, share: float) -> None:
        self.console.progress("evaluating", share, what)

    def _learn(self, real: Real) -> Learned | None:
        labels = real.labels(real.train_rows)
        num = len(real.dataset.classes)
        known = labels is not None and len(np.unique(labels[labels >= 0])) > 1
        unseen = real.labels(real.held_out_rows)
        return learn(
            real.train,
            labels if known else None,
            num if known else 0,
            held_out=(real.held_out, unseen) if known and unseen is not None and len(unseen) else None,
            seed=self.seed,
            heed=self._telling("learning features", 0.05),
            kept=Kept.usual(),
        )

    def _telling(self, what: str, share: float) -> Callable[[], None]:
        def heed() -> None:
            self.heed()
            self._say(what, share)

        return heed

    def figures(
        self, made: Judged, real: Real, yardstick: Yardstick, learned: Learned | None, quick: bool
    ) -> tuple[Figure, ...]:
        """All figures of items, against the same real ones."""
        self._say("figures", 0.4)
        found = yardstick.measure(made.items)
        labels, known, train = made.labels, real.labels(real.held_out_rows), real.labels(real.train_rows)
        said, readers = real.texts(real.held_out_rows), [f for f in yardstick.extra if isinstance(f, Clip)]
        if readers and made.texts is not None and said is not None and min(map(len, (said, made.texts))) >= LEAST_TEXTS:
            found.append(text_agreement(readers[0], real.held_out, said, made.items, made.texts))
        if learned is not None and learned.classes:
            found.append(classes.class_score(learned, yardstick.fresh, made.items))
        if labels is None or known is None or train is None or (known >= 0).sum() < 16 or (labels >= 0).sum() < 16:
            return tuple(found)
        if learned is None or not learned.classes:
            column = real.dataset.columns["label"]
            by_neighbours = LabelJudge.among(real.dataset.items, column, real.train_rows, real.held_out_rows)
            told = labels >= 0
            return (*found, *([by_neighbours.agreement(made.items[told], labels[told])] if by_neighbours else []))
        found.append(classes.agreement(learned, real.held_out, known, made.items, labels))
        heed = self._telling("a classifier from samples", 0.55)
        try:
            sides = (real.train, train), (real.held_out, known), (made.items, labels)
            found.append(classes.trained_on_samples(*sides, learned.classes, seed=self.seed, heed=heed))
        except DataError:
            self.console.say("note       too few labels to train a classifier on samples")
        return tuple(found)

    def _bits(self, made: Judged, real: Real) -> tuple[dict[str, Any], ...]:
        model, items = made.model, real.held_out
        if model is None or not isinstance(model.codec, Pixels) or not len(items):
            return ()
        rows = np.random.default_rng(self.seed).permutation(len(items))[:BITS_ITEMS]
        known = real.labels(real.held_out_rows)
        found = []
        for method, count, draws in (("bound", BITS_ITEMS, 8), ("flow", BITS_FLOW, 1)):
            self._say(f"bits a dimension: {method}", 0.85)
            some = rows[:count]
            if known is not None and model.classes:
                some = some[known[some] >= 0]
            if not len(some):
                continue
            label = None if known is None or not model.classes else known[some].tolist()
            bits = bits_per_dim(model, items[some], label, method=method, draws=draws, steps=20, seed=self.seed)
            found.append({"value": bits.value, "error": bits.error, "how": bits.how, "count": len(some)})
            self.heed()
        return tuple(b for b in found if math.isfinite(b["value"]) and math.isfinite(b["error"]))

    def facts(self, found: _Found, made: Judged, real: Real) -> dict[str, Any]:
        of, dataset = real.dataset.audit, real.dataset
        training = report_facts.training(made)
        said = judge(found.figures, found.audits, not found.yardstick.has_unseen, of.leaks)
        if training and training.get("verdict"):
            said.append(
                Said("fair", "say.run", {"line": training["verdict"]["line"], "advice": training["verdict"]["advice"]})
            )
        return {
            "langevin": __version__,
            "made": date.today().isoformat(),
            "name": made.name,
            "seed": self.seed,
            "seeds": list(made.seeds) if made.seeds else None,
            "counts": {"count": len(made.items), "train": len(real.train), "held_out": len(real.held_out)},
            "verdict": [dataclasses.asdict(one) for one in said],
            "figures": [report_facts.finite(dataclasses.asdict(f) | {"gap": f.gap}) for f in found.figures],
            "features": [
                report_facts.finite(
                    {"name": f.name, "dim": f.dim, "digest": f.digest, "accuracy": getattr(f, "accuracy", None)}
                )
                for f in found.yardstick.features
            ],
            "copies": [report_facts.audited(a, found.pool, real) for a in found.audits],
            "suspects": report_facts.suspects(found.pool, real),
            "bits": list(found.bits),
            "training": training,
            "curves": report_facts.curves(made.run),
            "data": {
                "source": Path(of.source).name,
                "items": len(dataset),
                "train": len(dataset.train_indices),
                "held_out": len(dataset.held_out_indices),
                "shape": f"{' x '.join(map(str, dataset.shape))}, {of.dtype}",
                "classes": dict(of.class_counts),
                "duplicates": {"exact": of.exact_duplicates, "near": len(of.near_duplicates), "leaks": of.leaks},
                "rejected": len(of.rejects),
                "fingerprint": dataset.fingerprint,
            },
            "sampling": made.how,
            "config": report_facts.settings(made.run),
            "machine": report_facts.machine(),
            "seconds": {"training": 60 * training["minutes"] if training else None},
        }

    def pictures(self, found: _Found, made: Judged, real: Real, facts: dict[str, Any]) -> dict[str, bytes]:
        self._say("pictures", 0.95)
        shown = real.held_out if found.yardstick.has_unseen else real.train
        worst = max(found.audits, key=lambda a: len(a.named))
        pictures = {
            "beside": exhibits.beside(shown, made.items, self.seed),
            "copies": exhibits.closest(made.items, real.train, worst),
        }
        model = made.model
        if model is None:
            return pictures | {"samples": exhibits.samples(made.items)}
        at_each_evaluation(model.denoiser, self.heed)
        seeds, labels, columns = sheet_of(model)
        facts["seeds"] = [seeds[0], seeds[-1]]
        items = with_axis(model.sample(seeds=seeds, label=labels, batch=self.batch, **made.settings), model)
        names = [model.classes[k % len(model.classes)] for k in range(COURSE)] if model.classes else None
        way = course(model, range(COURSE), names, made.settings.get("steps"))
        facts["course"] = {"steps": way.some(exhibits.PHASES), "total": way.steps}
        self.console.done()
        return pictures | {
            "samples": exhibits.samples(items, columns),
            "course": exhibits.strip(way),
            "moving": exhibits.moving(way),
        }


def _apart(name: str, other: str) -> str:
    return name if name != other else f"{name} (2)"


def _compared(name: str, ours: str, rows: Sequence[Beside]) -> list[dict[str, Any]]:
    wins = {side: sum(row.better == side for row in rows) for side in ("a", "b")}
    if not any(wins.values()):
        return [dataclasses.asdict(Said("fair", "say.even", {}))]
    first, second = ("a", "b") if wins["a"] >= wins["b"] else ("b", "a")
    values = {"name": ours if first == "a" else name, "count": wins[first], "worse": wins[second], "total": len(rows)}
    return [dataclasses.asdict(Said("good" if first == "a" else "fair", "say.better", values))]


def _commands(
    run: Path | None, other: Path | None, real: Path | None, generated: Path | None, n: int, seed: int, lang: str
) -> list[str]:
    parts = [str(p) for p in (run, other) if p is not None]
    for flag, path in (("--real", real), ("--generated", generated)):
        parts += [flag, str(path)] if path is not None else []
    parts += ["-n", str(n), "--seed", str(seed), *(["--lang", lang] if lang != "en" else [])]
    return [
        f"langevin evaluate {shlex.join(parts)}",
        *([f"langevin sample {shlex.quote(str(run))} -n 64"] if run else []),
    ]


def _target(out: Path | None, run: Path | None) -> Path:
    if out is None:
        target = (run if run is not None and run.is_dir() else Path()) / "report.html"
        taken = target.exists() or target.with_suffix(".json").exists()
        return store.free_path(target, ".json") if taken else target
    if out.suffix.lower() != ".html":
        raise UsageError("a report is a page", where=str(out), help="--out report.html")
    for path in (out, out.with_suffix(".json")):
        store.refuse_taken(path)
    return out


def _tell(console: Console, facts: dict[str, Any], figures: Sequence[Figure], target: Path, lang: str) -> None:
    console.say("")
    console.say(table(figures))
    console.say("")
    for one in facts["verdict"]:
        console.say(f"{'verdict':10} {in_words(lang, one['key'], **one['values'])}")
    console.say(f"made       {target}")
    console.say(f"           {target.with_suffix('.json')}")

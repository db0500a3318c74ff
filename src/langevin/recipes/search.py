"""`langevin search`: many short runs, to find the recipe that a person's own data want.

searches/NAME-k/   recipe.yaml  space.yaml  search.json  data.sha256  study.db  search.log
                   runs/trial-000/ ...   best.yaml  trials.csv  importance.png

Trial 0 is the default recipe. Every trial is a run of its own folder, in this process, one after the other; a second process
takes part with --resume. The objective is the held-out loss of the model that the run would publish, on the same items, at
the same noise, under the default's time law and weight: whatever a trial changes, the figure means the same.
"""

import gc
import json
import math
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from langevin.config import TrainConfig, parse, read_yaml, write_yaml
from langevin.data.dataset import Dataset
from langevin.diffusion import Condition, Denoiser
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.errors import DataError, DivergedError, LangevinError, MemoryShortError, UsageError, nearest
from langevin.evaluation.noise_levels import held_out_loss
from langevin.recipes import findings, plan, provenance
from langevin.recipes import train as training
from langevin.recipes.console import Console
from langevin.recipes.first import first_batch
from langevin.recipes.lock import lock
from langevin.recipes.session import Session
from langevin.recipes.signals import StoppedError, StopRequest, stop_requests
from langevin.recipes.space import Space
from langevin.recipes.study import Row, Study, Trial, need
from langevin.recipes.watch import Began, Event, Stepped, Watcher
from langevin.registry import build
from langevin.training.distributed import ALONE

MINUTES = 5.0
SHARES = (0.25, 0.5, 0.75)
"""Of a trial's budget, after which a hopeless one is given up: above the median of what others had then."""
CONFIRMED = 2
"""So many further seeds the best and the default recipe are run with."""


class PrunedError(Exception):
    """The trial is hopeless."""


@dataclass(frozen=True)
class Search:
    """A search that has ended.

    Attributes:
        path: its folder.
        trials: all of them, by number.
        best: the best recipe, a file that `train(config=...)` takes; None where no trial came to its end.
        verdict: whether it beats the default one, where that was confirmed.
    """

    path: Path
    trials: tuple[Row, ...]
    best: Path | None
    verdict: findings.Verdict | None


def search(
    path: "str | Path | None" = None,
    *,
    trials: int | None = None,
    minutes_per_trial: float | None = None,
    steps_per_trial: int | None = None,
    space: "str | Path | Mapping[str, Any] | None" = None,
    confirm: bool = False,
    out: str | None = None,
    size: int | None = None,
    seed: int | None = None,
    config: "str | Path | Mapping[str, Any] | None" = None,
    settings: Mapping[str, str] | None = None,
    resume: "str | Path | None" = None,
    searches: "str | Path" = "searches",
    console: Console | None = None,
    **options: Any,
) -> Search:
    """Search for a better recipe than the default one.

    Args:
        path: the data, as for `train`.
        trials: how many runs in all, 20 where it is not given; those that were killed do not count.
        minutes_per_trial: wall clock of each, 5 where neither it nor `steps_per_trial` is given.
        steps_per_trial: number of steps of each instead.
        space: what may change, a YAML file or a mapping (see `recipes.space`); chosen from the recipe where it is not given.
        confirm: run the best and the default recipe with two more seeds at the end, and say whether the gap is more than noise.
        out: name of the search; its folder is searches/NAME-1, or the next number that is free.
        size, seed, config, settings, options: of the default recipe, as for `train`.
        resume: a search's folder, to go on with it, or to take part in it from another process; more `trials` make it longer.

    Raises:
        LangevinError: with the exit code that a command would end with; StoppedError (75, 130) has kept everything.
    """
    console = console or Console()
    need()
    with ExitStack() as stack:
        stack.enter_context(console)
        stop = stack.enter_context(stop_requests())
        if resume is not None:
            given = {"path": path, "minutes_per_trial": minutes_per_trial, "steps_per_trial": steps_per_trial}
            given |= {"space": space, "out": out, "size": size, "seed": seed, "config": config}
            if extra := [k for k, v in {**given, "settings": settings or None, **options}.items() if v is not None]:
                raise UsageError(f"a resumed search keeps its own {', '.join(extra)}", help="leave them out")
            folder = _found(Path(resume))
            base = parse(read_yaml(folder / "recipe.yaml"), where=str(folder / "recipe.yaml"))
            dataset = training._open(base, console, stop, _again(folder), ALONE)
            if (folder / "data.sha256").read_text("utf-8") != dataset.fingerprint:
                raise DataError("the data are not those that the search began with", where=base.data.path)
            within = Space.read(base, folder / "space.yaml")
            if trials is not None:
                (folder / "search.json").write_text(json.dumps({"trials": _positive(trials)}))
        else:
            if minutes_per_trial is None and steps_per_trial is None:
                minutes_per_trial = MINUTES
            budget = {"minutes": minutes_per_trial, "steps": steps_per_trial, "seed": seed}
            base = training._config(path, config, settings, budget, {"size": size, **options})
            name, trials = training._checked(out) if out else training._name(base.data.path), _positive(trials or 20)
            if base.private is not None:
                raise UsageError("every trial would spend privacy anew", help="search on data that are not private")
            dataset = training._open(base, console, stop, "the same command begins again", ALONE)
            base = plan.resolve(base, dataset)
            plan.check(base, dataset)
            within = _space(base, space, dataset)
            folder = training._new_folder(Path(searches), name)
            (folder / "runs").mkdir()
            (folder / "recipe.yaml").write_text(write_yaml(base), "utf-8")
            (folder / "space.yaml").write_text(yaml.safe_dump(within.describe(), sort_keys=False), "utf-8")
            (folder / "search.json").write_text(json.dumps({"trials": trials}))
            (folder / "data.sha256").write_text(dataset.fingerprint, "utf-8")
        console.keep_log(folder / "search.log")
        wanted = json.loads((folder / "search.json").read_text())["trials"]
        with _alone(folder):
            study = Study(folder, within, trials=wanted, seed=base.seed)
        with study:
            return _Searcher(folder, base, within, study, dataset, console, stop).run(confirm)


class Measure:
    """The objective: held-out loss with the default recipe's own time law and weight, at noise that never changes."""

    def __init__(self, base: TrainConfig, dataset: Dataset) -> None:
        plain = plan.resolve(TrainConfig(data=base.data, steps=1), dataset)
        self.law = build(dict(plain.times), TimeLaw)
        self.weight = build(dict(plain.weight or {}), Weight)

    def __call__(self, denoiser: Denoiser, unseen: tuple[Tensor, Condition]) -> float:
        """The mean over items (N, ...) and levels."""
        return held_out_loss(denoiser, *unseen, self.law, self.weight).mean


class _Searcher:
    """One sitting of a search."""

    def __init__(
        self,
        folder: Path,
        base: TrainConfig,
        space: Space,
        study: Study,
        dataset: Dataset,
        console: Console,
        stop: StopRequest,
    ) -> None:
        self.folder, self.base, self.space, self.study = folder, base, space, study
        self.dataset, self.console, self.stop = dataset, console, stop
        self.measure = Measure(base, dataset)
        self.wanted, self.before = self._wanted(), 0

    def run(self, confirm: bool) -> Search:
        """Trials until there are enough, then what they found."""
        budget = f"{self.base.steps:,} steps" if self.base.steps else f"{self.base.minutes:g} min"
        self.console.say(
            f"search     {self.folder}: {self.wanted} trials of {budget}, {len(self.space.kinds)} settings"
        )
        while (taken := self._next()) is not None:
            trial, held = taken
            with held:
                self._try(trial)
            self._write()
        self._draw()
        verdict = self._confirm() if confirm else None
        return self._tell(verdict)

    def _wanted(self) -> int:
        return int(json.loads((self.folder / "search.json").read_text())["trials"])

    def _next(self) -> "tuple[Trial, ExitStack] | None":
        """The next trial with its run's folder held by this process; None where there are enough."""
        with _alone(self.folder), ExitStack() as stack:
            if killed := self.study.reclaim(lambda run: _is_held(self.folder / run)):
                self.console.say(f"note       {killed} trials had lost their process: marked, and put back")
            self.wanted, self.before = self._wanted(), self.study.counted()
            if self.before >= self.wanted:
                return None
            trial = self.study.ask()
            (self.folder / trial.folder).mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(self.folder / trial.folder))
            return trial, stack.pop_all()

    def _try(self, trial: Trial) -> None:
        said = f"trial {trial.number:>3}"
        try:
            recipe = self.space.recipe(trial.values)
            held_out = self._learn(self.folder / trial.folder, recipe, _Judge(trial, self.measure, self._progress))
            if not math.isfinite(held_out):
                raise DivergedError("the held-out loss is not finite")
        except StoppedError as error:
            trial.put_back()
            self._write()
            self._draw()
            raise StoppedError(
                f"the search was stopped in trial {trial.number}; all is kept",
                exit_code=error.exit_code,
                help=_again(self.folder),
            ) from None
        except PrunedError as hopeless:
            trial.prune(str(hopeless))
            self.console.say(f"{said}  pruned: {hopeless}")
        except Exception as error:
            if trial.is_default:  # without it nothing can be compared: let its error be seen
                trial.put_back()
                raise
            why = " ".join(f"{error}".split())[:300] or type(error).__name__
            lost = isinstance(error, LangevinError | torch.OutOfMemoryError | MemoryShortError)
            (trial.prune if lost else trial.fail)(why)
            self.console.say(f"{said}  {'pruned' if lost else 'failed'}: {why}")
        else:
            trial.finish(held_out)
            self.console.say(
                f"{said}  held-out {held_out:.5f}" + ("  (the default recipe)" if trial.is_default else ""),
                trial=trial.number,
                held_out=held_out,
            )
        finally:
            self.console.done()
            _free()

    def _learn(self, folder: Path, recipe: TrainConfig, *watchers: Watcher) -> float:
        """One run from a recipe, or from where it was left, to its model; the objective."""
        with Console("quiet") as quiet:
            if not (folder / "config.yaml").exists():
                recipe = plan.resolve(recipe, self.dataset)
                plan.check(recipe, self.dataset)
                provenance.begin(folder, self.dataset)
                (folder / "config.yaml").write_text(write_yaml(recipe), "utf-8")
            quiet.keep_log(folder / "run.log")
            watching = (first_batch, *watchers)
            session = Session(folder, recipe, self.dataset, quiet, self.stop, time.perf_counter(), watching)
            session.learn()
            model = session.averaged_model()
            held_out = self.measure(model.denoiser, session.unseen)
            model.about = {"name": folder.name, "held-out loss, as the search measures it": round(held_out, 5)}
            model.save(folder / "model", replace=True)
        return held_out

    def _progress(self, trial: Trial, event: Stepped) -> None:
        text = f"trial {trial.number}  {event.share:4.0%}  loss {event.metrics.loss:.4f}"
        share = (self.before + event.share) / max(1, self.wanted)
        self.console.progress("searching", min(1.0, share), text, trial=trial.number, step=event.metrics.step)

    def _write(self) -> None:
        """The table of all trials and the best recipe, anew."""
        rows = self.study.rows()
        findings.write_csv(rows, self.space, self.folder / "trials.csv")
        ranked = findings.best_first(rows)
        if ranked:
            best = ranked[0]
            said = f"# Trial {best.number} of {self.folder.name}: held-out loss {best.held_out:.5f}\n"
            text = (self.folder / best.folder / "config.yaml").read_text("utf-8")
            beside = self.folder / ".best.yaml.tmp"
            beside.write_text(said + text, "utf-8")
            beside.replace(self.folder / "best.yaml")

    def _draw(self) -> None:
        rows = self.study.rows()
        if findings.best_first(rows):
            findings.plot(rows, self.space, self.study.importance(), self.folder / "importance.png")

    def _confirm(self) -> findings.Verdict | None:
        """The default and the best recipe with further seeds: the best one's own trial chose it, so that does not count."""
        rows = self.study.rows()
        ranked = findings.best_first(rows)
        default = next((r for r in ranked if r.values == self.space.origin()), None)
        if default is None or default.held_out is None or ranked[0] is default:
            return None
        losses = {
            row.number: [self._again_with(row, k) for k in range(1, CONFIRMED + 1)] for row in (default, ranked[0])
        }
        return findings.verdict([default.held_out, *losses[default.number]], losses[ranked[0].number])

    def _again_with(self, row: Row, k: int) -> float:
        seed = self.base.seed + k
        folder = self.folder / "runs" / f"trial-{row.number:03d}-seed-{seed}"
        kept = folder / "held-out.json"
        if not kept.exists():
            folder.mkdir(exist_ok=True)
            with lock(folder):
                recipe = self.space.recipe(row.values).model_copy(update={"seed": seed})
                try:
                    held_out = self._learn(folder, recipe)
                except StoppedError as error:
                    raise StoppedError(
                        "the search was stopped while it confirmed; all is kept",
                        exit_code=error.exit_code,
                        help=f"{_again(self.folder)} --confirm",
                    ) from None
                kept.write_text(json.dumps({"held_out": held_out}))
                self.console.say(f"trial {row.number:>3}  held-out {held_out:.5f}  with seed {seed}")
            _free()
        return float(json.loads(kept.read_text())["held_out"])

    def _tell(self, verdict: findings.Verdict | None) -> Search:
        rows, say = self.study.rows(), self.console.say
        ranked = findings.best_first(rows)
        say("")
        say(f"trials     {findings.tally(rows)}")
        if not ranked:
            return Search(self.folder, tuple(rows), None, None)
        say(findings.table(rows, self.space))
        say("")
        best, default = ranked[0], next((r for r in ranked if r.values == self.space.origin()), None)
        if best is default:
            say("verdict    no trial was better than the default recipe")
        elif verdict is not None:
            say(f"verdict    {verdict}", better=verdict.better, gap=verdict.gap, noise=verdict.least)
        elif default is not None and default.held_out is not None and best.held_out is not None:
            gap = default.held_out - best.held_out
            say(f"verdict    the best is {gap:.5f} below the default at one seed; whether that is more than noise says")
            say(f"           {_again(self.folder)} --confirm")
        target = self.folder / "best.yaml"
        say(f"best       {target}")
        say(f"plots      {self.folder / 'importance.png'}")
        say(f"next       langevin train {shlex.quote(self.base.data.path)} --config {shlex.quote(str(target))}")
        return Search(self.folder, tuple(rows), target, verdict)


class _Judge:
    """A watcher that measures at fixed shares of the budget, and gives up what is hopeless."""

    def __init__(self, trial: Trial, measure: Measure, progress: Any) -> None:
        self._trial, self._measure, self._progress = trial, measure, progress
        self._look = len(trial.seen)
        self._unseen: Any = None

    def __call__(self, event: Event) -> None:
        match event:
            case Began():
                self._unseen = event.unseen
                self._due(event)  # a look that was due when the run was stopped
            case Stepped():
                self._progress(self._trial, event)
                self._due(event)

    def _due(self, event: Began | Stepped) -> None:
        while self._look < len(SHARES) and event.share >= SHARES[self._look]:
            held_out = self._measure(event.averaged().denoiser, self._unseen)
            self._look += 1
            if self._trial.report(self._look, held_out):
                raise PrunedError(f"held-out {held_out:.4f} after {SHARES[self._look - 1]:.0%} of the budget")


def _space(base: TrainConfig, given: "str | Path | Mapping[str, Any] | None", dataset: Dataset) -> Space:
    if isinstance(given, str | Path):
        return Space.read(base, Path(given))
    if given is not None:
        return Space.of(base, given)

    def is_sound(recipe: TrainConfig) -> bool:
        try:
            plan.check(recipe, dataset)
        except UsageError:
            return False
        return True

    return Space.default(base, is_sound, labelled=bool(dataset.classes))


def _found(folder: Path) -> Path:
    if not (folder / "search.json").is_file():
        others = [p.name for p in folder.parent.glob("*") if (p / "search.json").is_file()]
        help = nearest(folder.name, others) if others else ""
        raise UsageError("there is no search to resume", where=str(folder), help=help)
    return folder


def _positive(trials: int) -> int:
    if not 1 <= trials <= 100_000:
        raise UsageError(f"a search has 1 to 100,000 trials, not {trials:,}")
    return trials


def _again(folder: Path) -> str:
    return f"langevin search --resume {shlex.quote(str(folder))}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the search for a moment: no other process takes a trial meanwhile."""
    until = time.monotonic() + 60
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock(folder))
                break
            except UsageError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield


def _is_held(run: Path) -> bool:
    """Whether a process works on a run."""
    if not run.is_dir():
        return False
    try:
        with lock(run):
            return False
    except UsageError:
        return True


def _free() -> None:
    """Give back what the last run held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

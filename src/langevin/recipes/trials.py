"""The trials of a search: runs in its folder, one after the other, until there are enough. Several processes may do this at once."""

import gc
import json
import math
import shlex
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from langevin.config import TrainConfig, parse, read_yaml, write_yaml
from langevin.data.dataset import Dataset
from langevin.errors import DiskError, DivergedError, MemoryShortError, UsageError
from langevin.recipes import findings, plan, provenance, resume
from langevin.recipes.console import Console
from langevin.recipes.first import first_batch
from langevin.recipes.judge import Judge, Measure, PrunedError
from langevin.recipes.lock import is_held, lock, waiting
from langevin.recipes.session import Session
from langevin.recipes.signals import StoppedError, StopRequest
from langevin.recipes.space import Space
from langevin.recipes.study import Study, Trial
from langevin.recipes.watch import Stepped, Watcher
from langevin.store import write_file

LOST = (DivergedError, MemoryShortError, UsageError, torch.OutOfMemoryError)
"""What says that a trial's values are bad ones."""


def going_on(folder: Path) -> str:
    """The command that goes on with a search."""
    return f"langevin search --resume {shlex.quote(str(folder))}"


def wanted(folder: Path) -> int:
    """How many trials there are to be; another process may have changed that."""
    return int(json.loads((folder / "search.json").read_text("utf-8"))["trials"])


def want(folder: Path, trials: int) -> None:
    """Say how many trials there are to be."""
    write_file(folder / "search.json", json.dumps({"trials": trials}))


@dataclass(eq=False)
class Trials:
    """What this process does for a search.

    Attributes:
        folder: the search's.
        space: what may change around its recipe.
        study: its memory.
    """

    folder: Path
    space: Space
    study: Study
    dataset: Dataset
    console: Console
    stop: StopRequest
    measure: Measure = field(init=False)
    _counted: int = field(init=False, default=0)
    _wanted: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.measure = Measure(self.space.base, self.dataset)

    def run(self) -> None:
        """Trials until there are enough."""
        while (taken := self._next()) is not None:
            trial, held = taken
            with held:
                self._try(trial)
            self._write()
        self._draw()

    def _next(self) -> tuple[Trial, ExitStack] | None:
        """The next trial with its run's folder held by this process; None where there are enough."""
        with waiting(self.folder), ExitStack() as stack:
            if killed := self.study.reclaim(lambda run: is_held(self.folder / run)):
                self.console.say(f"note       trials that had lost their process: {killed}, marked and put back")
            self._wanted, self._counted = wanted(self.folder), self.study.counted()
            if self._counted >= self._wanted:
                return None
            trial = self.study.ask()
            (self.folder / trial.folder).mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(self.folder / trial.folder))
            return trial, stack.pop_all()

    def _try(self, trial: Trial) -> None:
        said = f"trial {trial.number:>3}"
        try:
            recipe = self.space.recipe(trial.values)
            held_out = self.learn(self.folder / trial.folder, recipe, Judge(trial, self.measure, self._progress))
            if not math.isfinite(held_out):
                raise DivergedError("the held-out loss is not finite")
        except StoppedError as error:
            trial.put_back()
            self._write()
            self._draw()
            what = f"the search was stopped in trial {trial.number}; all is kept"
            raise StoppedError(what, exit_code=error.exit_code, help=going_on(self.folder)) from None
        except PrunedError as hopeless:
            trial.prune(str(hopeless))
            self.console.say(f"{said}  pruned: {hopeless}")
        except Exception as error:
            if trial.is_default or isinstance(error, DiskError):  # nothing could be compared, or kept
                trial.put_back()
                raise
            why = " ".join(f"{error}".split())[:300] or type(error).__name__
            end, state = (trial.prune, "pruned") if isinstance(error, LOST) else (trial.fail, "failed")
            end(why)
            self.console.say(f"{said}  {state}: {why}")
        else:
            trial.finish(held_out)
            default = "  (the default recipe)" if trial.is_default else ""
            self.console.say(f"{said}  held-out {held_out:.5f}{default}", trial=trial.number, held_out=held_out)
        finally:
            self.console.done()

    def learn(self, folder: Path, recipe: TrainConfig, *watchers: Watcher) -> float:
        """One run from a recipe, or from where it was left, to its model; the figure of that."""
        _free()
        with Console("quiet") as quiet:
            if (folder / "config.yaml").exists():
                recipe, _ = resume.settled(folder, {}, {})
            else:
                recipe = plan.resolve(recipe, self.dataset)
                plan.check(recipe, self.dataset)
                provenance.begin(folder, self.dataset)
                resume.keep(folder, recipe)
            quiet.keep_log(folder / "run.log")
            watching, started = (first_batch, *watchers), time.perf_counter()
            session = Session(folder, recipe, self.dataset, quiet, self.stop, started, watching)
            session.learn()
            model = session.averaged_model()
            held_out = self.measure(model.denoiser, session.unseen)
            model.about = {"name": folder.name, "held-out loss, as the search measures it": round(held_out, 5)}
            model.save(folder / "model", replace=True)
        return held_out

    def _progress(self, trial: Trial, event: Stepped) -> None:
        text = f"trial {trial.number}  {event.share:4.0%}  loss {event.metrics.loss:.4f}"
        share = min(1.0, (self._counted + event.share) / self._wanted)
        self.console.progress("searching", share, text, trial=trial.number, step=event.metrics.step)

    def _write(self) -> None:
        """The table of all trials and the best recipe, anew."""
        rows = self.study.rows()
        findings.write_csv(rows, self.space, self.folder / "trials.csv")
        if ranked := findings.best_first(rows):
            best = ranked[0]
            said = f"# Trial {best.number} of {self.folder.name}: held-out loss {best.held_out:.5f}\n"
            recipe = parse(read_yaml(self.folder / best.folder / "config.yaml"))
            write_file(self.folder / "best.yaml", said + write_yaml(recipe))

    def _draw(self) -> None:
        rows = self.study.rows()
        if findings.best_first(rows):
            findings.plot(rows, self.space, self.study.importance(), self.folder / "importance.png")


def _free() -> None:
    """Give back what the run before held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

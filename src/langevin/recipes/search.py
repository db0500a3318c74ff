"""`langevin search`: many short runs, to find the recipe that a person's own data want.

searches/NAME-k/   recipe.yaml  space.yaml  search.json  data.sha256  study.db  search.log
                   runs/trial-000/ ...   best.yaml  trials.csv  importance.png

Trial 0 is the default recipe. Every trial is a run of its own folder, in this process, one after the other (`trials`); a second
process takes part with --resume. All are judged by one figure (`judge`), and the best one may be confirmed (`confirm`).
"""

import gc
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from langevin.config import TrainConfig, parse, read_yaml, write_yaml
from langevin.data.dataset import Dataset
from langevin.disk import disk_errors
from langevin.errors import DataError, UsageError
from langevin.recipes import findings, folders, plan
from langevin.recipes.asked import config_of
from langevin.recipes.confirm import confirm as confirmed
from langevin.recipes.console import Console
from langevin.recipes.lock import waiting
from langevin.recipes.reading import read
from langevin.recipes.signals import stop_requests
from langevin.recipes.space import Space
from langevin.recipes.study import Row, Study, need
from langevin.recipes.trials import Trials, going_on, want, wanted
from langevin.words import counted

TRIALS, MINUTES = 20, 5.0


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
    need()
    if trials is not None and not 1 <= trials <= 100_000:
        raise UsageError(f"a search has 1 to 100,000 trials, not {trials:,}")
    console = console or Console()
    with ExitStack() as stack:
        stack.enter_context(disk_errors(Path(searches if resume is None else resume)))
        stack.enter_context(console)
        stop = stack.enter_context(stop_requests())
        if resume is not None:
            given: dict[str, Any] = {
                "path": path,
                "minutes_per_trial": minutes_per_trial,
                "steps_per_trial": steps_per_trial,
            }
            given |= {"space": space, "out": out, "size": size, "seed": seed, "config": config}
            if extra := [k for k, v in {**given, "settings": settings or None, **options}.items() if v is not None]:
                raise UsageError(f"a resumed search keeps its own {', '.join(extra)}", help="leave them out")
            folder = folders.found(Path(resume), "search.json", "search to resume")
            base = parse(read_yaml(folder / "recipe.yaml"), where=str(folder / "recipe.yaml"))
            dataset = read(base, console, stop, again=going_on(folder))
            if (folder / "data.sha256").read_text("utf-8") != dataset.fingerprint:
                raise DataError("the data are not those that the search began with", where=base.data.path)
            within = Space.read(base, folder / "space.yaml")
            if trials is not None:
                want(folder, trials)
        else:
            if minutes_per_trial is None and steps_per_trial is None:
                minutes_per_trial = MINUTES
            budget = {"minutes": minutes_per_trial, "steps": steps_per_trial, "seed": seed}
            base = config_of(path, config, settings, budget, {"size": size, **options})
            name = folders.checked(out) if out else folders.name_for(base.data.path)
            if base.private is not None:
                raise UsageError("every trial would spend privacy anew", help="search on data that are not private")
            dataset = read(base, console, stop, again="the same command begins again")
            base = plan.resolve(base, dataset)
            plan.check(base, dataset)
            within = _space(base, space, dataset)
            folder = folders.new(Path(searches), name)
            _begin(folder, within, dataset, TRIALS if trials is None else trials)
        console.keep_log(folder / "search.log")
        with waiting(folder):
            study = Study(folder, within, trials=wanted(folder), seed=base.seed)
        gc.freeze()  # what is here by now stays: to look for what a trial has left takes no time then
        stack.callback(gc.unfreeze)
        with study:
            console.say(_opening(folder, within))
            found = Trials(folder, within, study, dataset, console, stop)
            found.run()
            return _told(found, confirmed(found) if confirm else None, confirm)


def _begin(folder: Path, space: Space, dataset: Dataset, trials: int) -> None:
    """Write what a new search is; search.json is last, with it there is one to resume."""
    (folder / "runs").mkdir()
    (folder / "recipe.yaml").write_text(write_yaml(space.base), "utf-8")
    (folder / "space.yaml").write_text(yaml.safe_dump(space.describe(), sort_keys=False), "utf-8")
    (folder / "data.sha256").write_text(dataset.fingerprint, "utf-8")
    want(folder, trials)


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


def _opening(folder: Path, space: Space) -> str:
    base, count = space.base, wanted(folder)
    budget = counted(base.steps, "step") if base.steps else f"{base.minutes:g} min"
    return f"search     {folder}: {counted(count, 'trial')} of {budget} over {', '.join(space.kinds)}"


def _told(trials: Trials, verdict: findings.Verdict | None, asked: bool) -> Search:
    """Say what was found."""
    folder, space, say = trials.folder, trials.space, trials.console.say
    rows = trials.study.rows()
    say("")
    say(f"trials     {findings.tally(rows)}")
    if not (ranked := findings.best_first(rows)):
        return Search(folder, tuple(rows), None, None)
    say(findings.table(rows, space))
    say("")
    best, default = ranked[0], findings.default_of(ranked, space)
    if best is default:
        say("verdict    no trial was better than the default recipe" + (": nothing to confirm" if asked else ""))
    elif verdict is not None:
        say(f"verdict    {verdict}", better=verdict.better, gap=verdict.gap, noise=verdict.least)
    elif default is not None and default.held_out is not None and best.held_out is not None:
        gap = default.held_out - best.held_out
        say(f"verdict    the best is {gap:.5f} below the default at one seed; whether that is more than noise says")
        say(f"           {going_on(folder)} --confirm")
    target = folder / "best.yaml"
    say(f"best       {target}")
    say(f"plots      {folder / 'importance.png'}")
    path, recipe = shlex.quote(space.base.data.path), shlex.quote(str(target))
    say(f"next       langevin train {path} --config {recipe} --minutes 10")
    return Search(folder, tuple(rows), target, verdict)

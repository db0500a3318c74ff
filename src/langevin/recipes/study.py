"""The memory of a search: an Optuna study in an SQLite file, that several processes may work on at once.

What ended well is counted; so is what was pruned, and what failed by itself. A trial whose process was killed or asked to
stop is marked and not counted: its values are put back, to be taken up from its last checkpoint.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langevin.errors import UsageError
from langevin.recipes.space import Choice, Range, Scale, Space, Value

try:
    import optuna
    from optuna.trial import TrialState
except ImportError:
    optuna = None  # type: ignore[assignment]

NAME = "study.db"
STARTUP = 6
"""So many trials are drawn at random before the sampler trusts what it saw."""
FEWEST = 4
"""With fewer complete trials there is no spread to explain."""


def need() -> None:
    """Raise UsageError where Optuna is not installed."""
    if optuna is None:
        raise UsageError("a search needs optuna, which is not installed", help="pip install 'langevin[search]'")


@dataclass(frozen=True)
class Row:
    """One trial as it stands.

    Attributes:
        state: complete, pruned, failed, killed, running or waiting.
        held_out: the objective; None where there is none.
        values: by setting, as the space has them.
        seen: (look, held-out loss) of each look.
        folder: its run's, below the search's.
        why: what ended it, where that was not the end of its budget.
        seconds: of wall clock.
    """

    number: int
    state: str
    held_out: float | None
    values: dict[str, Value]
    seen: tuple[tuple[int, float], ...]
    folder: str
    why: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial that this process works on."""

    number: int
    values: dict[str, Value]
    folder: str
    seen: Mapping[int, float]
    _study: "Study"
    _inner: Any

    @property
    def is_default(self) -> bool:
        """Whether it is the recipe that the search began with."""
        return bool(self.values == self._study.space.origin())

    def report(self, look: int, held_out: float) -> bool:
        """Tell a look's held-out loss; whether the trial is hopeless. The default recipe never is."""
        if not math.isfinite(held_out):
            return True
        self._inner.report(held_out, look)
        return not self.is_default and bool(self._inner.should_prune())

    def finish(self, held_out: float) -> None:
        """The trial has come to its end."""
        self._study.tell(self._inner, held_out, TrialState.COMPLETE)

    def prune(self, why: str) -> None:
        """It was given up: hopeless, diverged, too large."""
        self._inner.set_user_attr("why", why)
        self._study.tell(self._inner, None, TrialState.PRUNED)

    def fail(self, why: str) -> None:
        """Something went wrong that says nothing about its values."""
        self._inner.set_user_attr("why", why)
        self._study.tell(self._inner, None, TrialState.FAIL)

    def put_back(self) -> None:
        """Its process was asked to stop."""
        self._study.put_back(self.number, "stopped")


class Study:
    """The study of a search's folder; made where it is not there. Used in a `with` block.

    Args:
        trials: how many there will be, for the pruner.
        seed: of the sampler.
    """

    def __init__(self, folder: Path, space: Space, *, trials: int, seed: int) -> None:
        need()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        url = f"sqlite:///{(folder / NAME).absolute()}"
        self._storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        fresh = not self._storage.get_all_studies()
        done = 0 if fresh else len(optuna.load_study(study_name=folder.name, storage=self._storage).get_trials(False))
        self._inner = optuna.create_study(
            storage=self._storage,
            study_name=folder.name,
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=(seed + 7919 * done) % 2**32, n_startup_trials=STARTUP),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=max(1, min(4, trials // 4))),
        )
        if fresh:
            self._inner.enqueue_trial(space.origin())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def ask(self) -> Trial:
        """The next trial: one that was put back, or a new one."""
        inner = self._inner.ask()
        values = {name: self._suggest(inner, name) for name in self.space.kinds}
        attributes = inner.user_attrs
        folder = attributes.get("folder") or f"runs/trial-{inner.number:03d}"
        inner.set_user_attr("folder", folder)
        seen = {int(look): loss for look, loss in json.loads(attributes.get("seen", "{}")).items()}
        for look, loss in seen.items():  # what was seen before it was put back
            inner.report(loss, look)
        return Trial(inner.number, values, folder, seen, self, inner)

    def _suggest(self, inner: Any, name: str) -> Value:
        match self.space.kinds[name]:
            case Range(low=low, high=high, log=log) as kind:
                suggest = inner.suggest_int if kind.whole else inner.suggest_float
                return suggest(name, low, high, log=log)  # type: ignore[no-any-return]
            case Choice(values=values) | Scale(values=values):
                return inner.suggest_categorical(name, list(values))  # type: ignore[no-any-return]

    def tell(self, inner: Any, held_out: float | None, state: Any) -> None:
        """End a trial."""
        self._inner.tell(inner, held_out, state=state)

    def put_back(self, number: int, why: str) -> None:
        """Mark a trial whose process is gone, and queue its values, its folder and what was seen of it."""
        (trial,) = (t for t in self._inner.get_trials(False) if t.number == number)
        self._storage.set_trial_user_attr(trial._trial_id, "why", why)
        self._inner.tell(number, state=TrialState.FAIL)
        if trial.params.keys() != self.space.kinds.keys():  # it was killed before it had values
            return
        kept = {"folder": trial.user_attrs.get("folder"), "seen": json.dumps(trial.intermediate_values)}
        self._inner.enqueue_trial(trial.params, user_attrs={k: v for k, v in kept.items() if v})

    def reclaim(self, is_alive: Callable[[str], bool]) -> int:
        """Put back the running trials that nobody works on; how many there were.

        Args:
            is_alive: whether a process has the run's folder.
        """
        dead = [row for row in self.rows() if row.state == "running" and not (row.folder and is_alive(row.folder))]
        for row in dead:
            self.put_back(row.number, "killed")
        return len(dead)

    def counted(self) -> int:
        """Trials that are done or under way; those killed or stopped are not."""
        return sum(row.state not in ("killed", "waiting") for row in self.rows())

    def rows(self) -> list[Row]:
        """All trials, by number."""
        return [_row(trial) for trial in self._inner.get_trials(True)]

    def importance(self) -> dict[str, float]:
        """Share of the objective's spread that each setting explains (fANOVA), largest first; {} where too little is known."""
        if len({row.held_out for row in self.rows()} - {None}) < FEWEST:
            return {}
        try:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            return dict(optuna.importance.get_param_importances(self._inner, evaluator=evaluator))
        except (ValueError, RuntimeError):
            return {}


def _row(trial: Any) -> Row:
    why, names = trial.user_attrs.get("why", ""), {"complete": "complete", "pruned": "pruned", "fail": "failed"}
    state = "killed" if why in ("killed", "stopped") else names.get(trial.state.name.lower(), trial.state.name.lower())
    seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
    return Row(
        trial.number,
        state,
        trial.value if trial.state == TrialState.COMPLETE else None,
        dict(trial.params),
        tuple(sorted(trial.intermediate_values.items())),
        trial.user_attrs.get("folder", ""),
        why,
        seconds,
    )

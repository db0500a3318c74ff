"""A run whose numbers went wrong is sent back to the last good checkpoint, at half the learning rate; at most twice.

The checkpoint it is sent back to is written again at once with what has become of it (the rate, how often it was sent back), so
that a run which is killed then does not forget. What lay after it is gone: later checkpoints, and the rows of later steps.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langevin import store
from langevin.errors import DivergedError, RefusedError
from langevin.model import Model
from langevin.recipes.console import one_line
from langevin.training import Metrics, TrainState, checkpoint
from langevin.training.guard import MAX_RETURNS, AstrayError
from langevin.words import counted

Say = Callable[[str], None]


def tell(say: Say, metrics: Metrics) -> None:
    """Say what went wrong at a step."""
    for trouble in metrics.troubles:
        say(f"step {metrics.step:>7,}  {trouble.what}")


def send_back(
    run: Path, error: DivergedError, model: Model, state: TrainState, first: Callable[[], TrainState], say: Say
) -> dict[str, Any]:
    """Put the state back to the last good checkpoint, or to the first weights where there is none; gives the row to log.

    Args:
        error: what went wrong.
        model: on the state's network.
        first: makes the state of the first step anew.

    Raises:
        DivergedError: it was sent back often enough.
    """
    step, draw, guard, rate, elapsed, skipped = (
        state.step, state.draw, state.guard, state.rate, state.elapsed, state.skipped,
    )  # fmt: skip
    if guard.returns >= MAX_RETURNS:
        raise DivergedError(
            f"{error.what}; the run had been sent back {guard.returns} times, each time at half the learning rate",
            where=error.where,
            help=error.help,
        ) from error
    folder = _last_good(run, say)
    secret = state.secret
    if folder is None:
        begin_anew(state, first())
    else:
        checkpoint.restore(folder, model, state)
    for later in checkpoint.folders(run):
        if folder is None or later.name > folder.name:
            shutil.rmtree(later)
    state.guard.returns, state.guard.micro_batch, state.guard.halved = (
        guard.returns + 1,
        guard.micro_batch,
        guard.halved,
    )
    state.guard.shaken = int(isinstance(error, AstrayError))
    state.rate, state.elapsed, state.skipped = rate / 2, elapsed, skipped
    state.secret, state.lost = secret, draw - state.step  # a private run never makes a draw twice
    what = (
        f"back to step {state.step:,}{'' if folder else ', the first weights,'} at {state.rate:g} of the learning rate"
    )
    say(f"step {step:>7,}  {error.what}")
    left = MAX_RETURNS - state.guard.returns
    say(
        f"step {step:>7,}  {what}"
        + (f"; it may be sent back {counted(left, 'time')} more" if left else ", for the last time")
    )
    return {
        "step": state.step,
        "returned_from": step,
        "rate": state.rate,
        "returns": state.guard.returns,
        "why": error.what,
    }


def begin_anew(state: TrainState, fresh: TrainState) -> None:
    """Make a state what another is that has taken no step."""
    state.load(fresh.network.state_dict())
    state.optimizer.state.clear()
    terms = state.terms
    state.restore(fresh.tensors(), fresh.numbers())
    state.terms = terms


def _last_good(run: Path, say: Say) -> Path | None:
    """The newest sound checkpoint that was no doubtful moment's."""
    for folder in checkpoint.folders(run):
        try:
            store.verify(folder)
            facts = store.read_json(folder / "state.json")
        except RefusedError as error:
            say(f"{error}; passed over")
            continue
        guard = facts.get("numbers", facts).get("guard", {})
        sent_back_to = guard.get("shaken", 0) <= 1  # 1 is what a run that was sent back begins with
        if sent_back_to and not guard.get("in_a_row") and not guard.get("astray"):
            return folder
    return None


def log(rows: Path, facts: dict[str, Any]) -> None:
    """Forget the rows of steps that were taken back, and put in their place that they were."""
    kept = [line for line in rows.read_text("utf-8").splitlines() if json.loads(line)["step"] <= facts["step"]]
    store.write_file(rows, "".join(line + "\n" for line in [*kept, one_line(facts)]))

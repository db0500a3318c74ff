"""`langevin search --confirm`: the best and the default recipe with further seeds, for the best of many is partly luck."""

import json

from langevin.recipes import findings
from langevin.recipes.findings import Verdict
from langevin.recipes.lock import lock
from langevin.recipes.signals import StoppedError
from langevin.recipes.study import Row
from langevin.recipes.trials import Trials, going_on
from langevin.store import write_file

SEEDS = 2
"""So many further ones."""


def confirm(trials: Trials) -> Verdict | None:
    """Whether the best recipe beats the default one; None where they are the same, or one of them is not there.

    The best one's own trial chose it, so that it does not count; the default's does.
    """
    ranked = findings.best_first(trials.study.rows())
    default = findings.default_of(ranked, trials.space)
    if default is None or default.held_out is None or ranked[0] is default:
        return None
    again = [_with_seeds(trials, row) for row in (default, ranked[0])]
    return findings.verdict([default.held_out, *again[0]], again[1])


def _with_seeds(trials: Trials, row: Row) -> list[float]:
    return [_with_seed(trials, row, trials.space.base.seed + k) for k in range(1, SEEDS + 1)]


def _with_seed(trials: Trials, row: Row, seed: int) -> float:
    folder = trials.folder / "runs" / f"trial-{row.number:03d}-seed-{seed}"
    kept = folder / "held-out.json"
    if kept.exists():
        return float(json.loads(kept.read_text("utf-8"))["held_out"])
    folder.mkdir(exist_ok=True)
    with lock(folder):
        recipe = trials.space.recipe(row.values).model_copy(update={"seed": seed})
        try:
            held_out = trials.learn(folder, recipe)
        except StoppedError as error:
            what, again = "the search was stopped while it confirmed; all is kept", going_on(trials.folder)
            raise StoppedError(what, exit_code=error.exit_code, help=f"{again} --confirm") from None
        write_file(kept, json.dumps({"held_out": held_out}))
    trials.console.say(f"trial {row.number:>3}  held-out {held_out:.5f}  with seed {seed}")
    return held_out

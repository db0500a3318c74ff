"""Is it working, and when to stop: a verdict in words from the looks of a run.

A look is the loss of the same held-out items and the same training items at the same noise. With l_k(i) that of item i at
look k, what is tested is the mean over items of

    log l_k(i) - log l_j(i)        (0.1: item i costs 10 % more than it did)

against its standard error: items differ by a factor, what training does to them differs little. The weights measured are an
average over the last steps; where it gets worse, a smaller learning rate does not bring back what is lost.

    overfitting   held-out items have risen above their best look, in two looks running, and training items have not
    diverging     both have risen; in a private run, whose training items nobody looks at, held-out items have
    plateau       since some look nothing has fallen any further, though the run has since grown by half
    learning      anything else
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr

State = Literal["early", "learning", "plateau", "overfitting", "diverging"]

ALPHA = 0.005
"""Chance of one test to see a rise or a fall of items where there is none."""
RISE = math.log(1.03)
"""Less than this is no rise: weights wander so much between two looks of a run that has nothing left to learn."""
FALL = math.log(1.01)
"""Less than this, over half as many steps again, is no progress."""
GROWN = 1.5
PATIENCE = 3
"""Looks running that say overfitting before a run is ended."""
LOST = math.log(1.1)
"""Held-out items have lost at least so much by then."""
_DEAR = (
    "more steps cost more epsilon, or more noise for the same: more data, or a larger batch, whose items share the noise, are "
    "what a new run can have for the same epsilon"
)


@dataclass(frozen=True)
class Look:
    """Losses at one step.

    Attributes:
        step: steps done.
        held_out: of each held-out item; () where there is none.
        training: of each of the training items; () in a private run, which keeps them to itself.
    """

    step: int
    held_out: tuple[float, ...]
    training: tuple[float, ...]


@dataclass(frozen=True)
class Change:
    """What became of items between two looks: the mean log ratio, its standard error and degrees of freedom."""

    value: float
    error: float
    freedom: int

    def beyond(self, size: float, alpha: float = ALPHA) -> bool:
        """Whether it is larger than `size`, and larger than 0 with a chance of less than `alpha` to be so by luck."""
        if not self.value > size or not self.error < math.inf:
            return False
        return self.error == 0 or bool(stdtr(self.freedom, -self.value / self.error) < alpha)

    def __neg__(self) -> "Change":
        return Change(-self.value, self.error, self.freedom)

    def __sub__(self, other: "Change") -> "Change":
        error = math.hypot(self.error, other.error)
        return Change(self.value - other.value, error, min(self.freedom, other.freedom))

    def __str__(self) -> str:
        middle, width = 100 * math.expm1(self.value), 100 * math.exp(self.value) * self.error
        return f"{middle:+.1f} ± {width:.1f} %" if math.isfinite(width) else f"{middle:+.1f} %"


def change(before: Sequence[float], after: Sequence[float]) -> Change:
    """From `before` to `after`, of the same items in the same order. One item alone has no error: it shows nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.asarray(after, np.float64)) - np.log(np.asarray(before, np.float64))
    n = len(logs)
    if n < 2 or not np.isfinite(logs).all():
        return Change(float(logs.mean()) if n else math.nan, math.inf, max(n - 1, 1))
    return Change(float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(n), n - 1)


@dataclass(frozen=True)
class Verdict:
    """What a run's looks say.

    Attributes:
        state: early (fewer than three looks), learning, plateau, overfitting or diverging.
        step: of the last look.
        since: the step since which the state holds; where it learns or is early, that of the look before.
        best: the step with the lowest held-out loss.
        items: held-out items; 0 where all is said of the training items.
        held_out, training: changes since `since`.
        gain: what twice the steps would lower the held-out loss by; None where that cannot be told.
        stop: whether to go on is a waste.
        private: whether more steps tell more of the training items.
    """

    state: State
    step: int
    since: int
    best: int
    items: int
    held_out: Change
    training: Change
    gain: Change | None
    stop: bool
    private: bool = False

    @property
    def line(self) -> str:
        """The verdict in a few words."""
        sides = [f"held-out {self.held_out}"] * bool(self.items) + [f"training {self.training}"] * (not self.private)
        numbers = ", ".join(sides)
        if self.state == "early":
            return "too early to tell"
        if self.state == "learning":
            return f"learning: {numbers} since step {self.since:,}"
        rising = self.state == "plateau" and self.held_out.value > RISE
        return f"{self.state} since step {self.since:,}: {numbers}" + ", perhaps rising" * rising

    @property
    def advice(self) -> str:
        """What to do next, at the end of a run."""
        if self.state == "overfitting":
            return (
                f"more steps fit the training items alone, step {self.best:,} was best: more data helps, `--flip` where "
                "pictures may be mirrored, or a smaller network (network.widths)"
            )
        if self.state == "diverging":
            return "lower the learning rate (optimizer.lr)" + ", or take fewer steps" * self.private
        if self.gain is None:
            return f"too short to tell what more steps bring: {_DEAR}" if self.private else "give it more steps"
        more = f"twice the steps would lower the loss by about {max(-100 * math.expm1(-self.gain.value), 0):.1f} %"
        if self.gain.beyond(FALL):
            return f"{more}, but {_DEAR}" if self.private else f"{more}: a longer run pays"
        return f"{more}: stop here, or give it more data or a larger network (network.widths)"

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON; null for what is not finite."""
        found = asdict(self) | {"line": self.line, "advice": self.advice}
        for name in ("held_out", "training", "gain"):
            if found[name]:
                found[name] = {k: v if math.isfinite(v) else None for k, v in found[name].items()}
        return found


def looks_of(rows: Iterable[Mapping[str, Any]]) -> list[Look]:
    """The looks among the rows of a metrics.jsonl, by step; of two at one step the later one."""
    found = {
        row["step"]: Look(row["step"], tuple(row["held_out_items"]), tuple(row["training_items"]))
        for row in rows
        if "training_items" in row
    }
    return [found[step] for step in sorted(found)]


def judge(looks: Sequence[Look]) -> Verdict:
    """The verdict on a run after its looks, by step; at least one."""
    means = [float(np.mean(_main(look))) for look in looks]
    finite = [m if math.isfinite(m) else math.inf for m in means]
    best, last, now = int(np.argmin(finite)), len(looks) - 1, looks[-1]
    since, streak, gain = max(last - 1, 0), 0, None
    state: State = "early" if last < 2 else "learning"
    while streak < last and _risen(looks, finite, last - streak):
        streak += 1
    if not math.isfinite(means[last]):
        state, since = "diverging", best
    elif last >= 2 and streak >= 2 and (kind := _kind(looks[best], now)):
        state, since = kind, best
    elif last >= 2:
        flat = _flat_since(looks, finite)
        if flat is not None and now.step >= GROWN * looks[flat].step:
            state, since = "plateau", flat
        gain = _gain(looks)
    held_out, training = _changes(looks[since], now)
    stop = state == "overfitting" and streak >= PATIENCE and held_out.value > LOST
    items = len(now.held_out)
    steps = now.step, looks[since].step, looks[best].step
    return Verdict(state, *steps, items, held_out, training, gain, stop, private=not now.training)


def _main(look: Look) -> tuple[float, ...]:
    """What is to fall: the held-out items' losses, or those of training items where none is held out."""
    return look.held_out or look.training


def _changes(a: Look, b: Look) -> tuple[Change, Change]:
    return change(_main(a), _main(b)), change(a.training, b.training)


def _risen(looks: Sequence[Look], means: Sequence[float], k: int) -> bool:
    """Whether look k lies significantly above the best look before it."""
    best = int(np.argmin(means[: k + 1]))
    return change(_main(looks[best]), _main(looks[k])).beyond(RISE)


def _kind(best: Look, now: Look) -> State | None:
    """What a rise is: training items rose too, or fell behind; None where neither is certain."""
    held_out, training = _changes(best, now)
    if training.beyond(RISE) or not now.training:
        return "diverging"
    return "overfitting" if best.held_out and (held_out - training).beyond(0.0) else None


def _flat_since(looks: Sequence[Look], means: Sequence[float]) -> int | None:
    """The first look after which the loss has not fallen any further."""
    for k, look in enumerate(looks[:-1]):
        later = k + 1 + int(np.argmin(means[k + 1 :]))
        if not -change(_main(look), _main(looks[later])).value > FALL:
            return k
    return None


def _gain(looks: Sequence[Look]) -> Change | None:
    """What the next doubling of steps brings: about what the last one did. On Fashion-MNIST it was 1.3 and 1.1 times as much
    (from 300 to 600 and to 1,200 steps), for the longer run is slow to come to rest later."""
    steps, half = np.log([look.step for look in looks]), math.log(looks[-1].step / 2)
    if steps[0] > half:
        return None
    k = int(np.searchsorted(steps, half, side="right")) - 1
    share = (half - steps[k]) / (steps[k + 1] - steps[k])
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = (np.log(_main(look)) for look in looks[k : k + 2])
        then = np.exp(before + share * (after - before))
    return -change(then, _main(looks[-1]))

"""Numbers that go wrong: what counts as gone wrong, and the memory that seeing it takes.

A step whose loss or gradient is not finite is skipped; the fourth in a row is a `DivergedError`, which the recipe answers by
going back to a good checkpoint at half the learning rate. A run may also diverge with finite numbers. The batch loss is
therefore compared, sample by sample, with that of a network that says nothing (whose output is 0), which is known in closed
form, on the same samples, times and weights (in a private run, that must not know its own, on held-out samples):

    silence = w(t) ((1 - c_skip alpha)^2 mean(x0^2) + (c_skip sigma)^2),      r = loss / silence

r begins at 1 and falls, whatever the weight, the time law, the data and the batch; drawing t and x0 differently hardly moves
it, so that even with one sample a step its logarithm, smoothed over 16 steps, stays within 0.1 of its course. The run is

    astray    while r is over twice the lowest it has been, and over 0.8 of what it began with: for 32 steps, and it has diverged;
    shaken    from when r was over 1.35 of what it began with until it is under 0.8 of that: a network that a rate far too high
              has saturated never gets there. For 256 steps, and it has diverged.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any

from torch import Tensor

from langevin.diffusion.weights import Weight
from langevin.errors import DivergedError

MAX_SKIPPED = 3
"""So many steps in a row may give numbers that are not finite; the next sends the run back."""
MAX_RETURNS = 2
"""So many times a run is sent back to a good checkpoint; the next time it ends."""
ASTRAY, SHAKEN = 32, 256
"""So many steps in a row of each are a divergence."""
SMOOTH = 1 / 16
_WORSE, _LEARNED = math.log(1.35), math.log(0.8)
_SEEN, _FEWEST, _SPIKE = 64, 16, math.log(10)


class AstrayError(DivergedError):
    """The loss is finite, and that of a network which has lost, or never found, what there is to learn."""


@dataclass(frozen=True)
class Trouble:
    """Something that went wrong at a step, to be told.

    Attributes:
        kind: "skipped", "spike", "memory" or "return".
        what: in words.
        facts: the same for a machine.
    """

    kind: str
    what: str
    facts: dict[str, Any] = field(default_factory=dict)


def finite(loss: float, norm: float) -> bool:
    """Whether a step may be taken: all processes must come to the same answer."""
    return math.isfinite(loss) and math.isfinite(norm)


def silence(denoiser: Any, x0: Tensor, t: Tensor, weight: Weight) -> Tensor | None:
    """(B,) float64: the loss of a network whose output is 0, the noise averaged out; None where nobody knows."""
    coefficients = getattr(getattr(denoiser, "parametrization", None), "coefficients", None)
    if coefficients is None:
        return None
    schedule = denoiser.process.schedule
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    skip = coefficients(alpha, sigma).c_skip
    power = x0.square().flatten(1).mean(1).to(t)
    silent: Tensor = weight(schedule, t) * ((1 - skip * alpha).square() * power + (skip * sigma).square())
    return silent


@dataclass
class Guard:
    """What the detectors remember; saved with the run, so that a resumed one judges as one never stopped.

    Attributes:
        in_a_row: steps skipped in a row.
        returns: times the run was sent back.
        micro_batch: samples at once that fit into memory, where that had to be found out.
        halved: how often it was halved.
        level, began, best: log r smoothed, at the beginning, and at its lowest.
        astray, shaken: steps in a row.
        norms: of the last gradients.
    """

    in_a_row: int = 0
    returns: int = 0
    micro_batch: int | None = None
    halved: int = 0
    level: float | None = None
    began: float = 0.0
    best: float = 0.0
    astray: int = 0
    shaken: int = 0
    norms: list[float] = field(default_factory=list)

    @staticmethod
    def of(numbers: dict[str, Any]) -> "Guard":
        """From what `numbers` gave; what is missing is as at the start."""
        return Guard(**{f.name: numbers[f.name] for f in fields(Guard) if f.name in numbers})

    def numbers(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)

    @property
    def doubtful(self) -> bool:
        """Whether the weights may be those of a run that is about to diverge: no place to go back to."""
        return self.in_a_row + self.astray + self.shaken > 0

    def skip(self, step: int, what: str, rate: float) -> None:
        """Count a step that was not finite. Raises DivergedError for the fourth in a row."""
        self.in_a_row += 1
        if self.in_a_row > MAX_SKIPPED:
            raise DivergedError(
                f"{self.in_a_row} steps in a row gave numbers that are not finite: {what}",
                where=f"step {step}",
                help=f"lower optimizer.lr (it was {rate:.3g} here), or look at what is named",
            )

    def spike(self, norm: float) -> float | None:
        """How many times the median of the last 64 gradients this one is, where that is far outside what they were."""
        logs = [math.log(max(n, 1e-30)) for n in self.norms]
        self.norms = [*self.norms[1 - _SEEN :], norm]
        if len(logs) < _FEWEST:
            return None
        middle = median(logs)
        spread = 1.4826 * median(abs(v - middle) for v in logs)
        above = math.log(max(norm, 1e-30)) - middle
        return math.exp(min(above, 700)) if above > max(_SPIKE, 6 * spread) else None

    def heed(self, loss: float, silent: float | None, step: int, rate: float) -> None:
        """Take note of a step that was taken. Raises AstrayError where the run has diverged.

        Args:
            loss, silent: the batch's loss, and that of a network that says nothing; None where nobody knows, and nothing is
                judged.
        """
        self.in_a_row = 0
        if silent is None:
            return
        y = math.log(max(loss, 1e-30) / max(silent, 1e-30))
        if self.level is None:
            self.level = self.best = self.began = max(y, 0.0)
        self.level += SMOOTH * (y - self.level)
        self.best = min(self.best, self.level)
        above = self.level - self.began
        self.astray = self.astray + 1 if self.level > self.best + math.log(2) and above > _LEARNED else 0
        if above < _LEARNED:
            self.shaken = 0
        elif self.shaken or above > _WORSE:
            self.shaken += 1
        if self.astray >= ASTRAY or self.shaken >= SHAKEN:
            self.give_up(step, rate)

    def conclude(self, step: int, rate: float) -> None:
        """The budget is spent. Raises AstrayError where what came out is nothing to keep."""
        if self.astray or self.shaken >= (1 if self.returns else ASTRAY):
            self.give_up(step, rate)

    def give_up(self, step: int, rate: float) -> None:
        """Raise AstrayError in the words that fit."""
        now, best = (math.exp((v or 0.0) - self.began) for v in (self.level, self.best))
        had = f" (it had been {best:.3g})" if best < 0.8 else ""
        after = "" if self.astray else f", {self.shaken:,} steps after it rose above that or the run was sent back"
        raise AstrayError(
            f"the loss is {now:.3g} times that of the untrained network{had}{after}",
            where=f"step {step}",
            help=f"lower optimizer.lr (it was {rate:.3g} here)",
        )


def mean_silence(silent: Tensor | None, importance: Tensor) -> float | None:
    """`silence` as `Losses.mean` takes the loss."""
    return None if silent is None or not len(silent) else float((silent * importance.to(silent)).mean())


def names(of: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more."""
    return ", ".join(of[:most]) + (f" and {len(of) - most:,} more" if len(of) > most else "")

"""The terms a run is trained under, and what becomes of its position where a later sitting changes them.

With `batch` samples a step, step k begins at sample n_k = k batch + shift of the run and at place n_k + passed of the endless
order of its data. Other terms at step k leave n_k as it is:

    another batch    shift' = shift + k (batch - batch'); the same items follow, and the budget is as many samples as before
    other data       passed' is such that n_k + passed' is the next place at which an epoch of the new data begins
    a longer budget  the learning rate follows the course of the longer run, and warms up again from where it stands

All of it is a function of the state at step k and of the new terms: a run that is killed before it has saved again finds it
again. It is saved with the state.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Terms:
    """What a sitting trains under, and what other terms before it left behind.

    Attributes:
        batch: samples a step.
        steps, minutes: the budget, one of them; over all sittings.
        data: fingerprint of the data; "" where nobody looks.
        shift: samples seen that `batch` a step does not account for.
        passed: places of the order that were passed over.
        since: step at which these data began.
        warmed: share of the budget at which it was lengthened; 0 where it never was.
    """

    batch: int
    steps: int | None = None
    minutes: float | None = None
    data: str = ""
    shift: int = 0
    passed: int = 0
    since: int = 0
    warmed: float = 0.0

    @property
    def offset(self) -> int:
        """Place in the order of the first sample of step 0."""
        return self.shift + self.passed

    def samples(self, step: float) -> float:
        """Samples seen after so many steps."""
        return step * self.batch + self.shift

    def share(self, step: float) -> float:
        """Share of a budget of steps that is spent after so many."""
        return self.samples(step) / self.samples(self.steps or 1)

    def spent(self, step: int, elapsed: float) -> float:
        """Share of the budget that is spent, of whichever kind it is."""
        return self.share(step) if self.steps else elapsed / (60 * (self.minutes or 1))

    def warmth(self, at: float, warmup: float) -> float:
        """Factor on the learning rate at share `at` of its course: rises over `warmup` where the budget was lengthened."""
        return min(1.0, (at - self.warmed) / warmup) if self.warmed and warmup else 1.0

    def then(self, new: "Terms", *, step: int, elapsed: float, began: float, items: int) -> tuple["Terms", list[str]]:
        """From `step` on, the terms of `new` (batch, steps, minutes, data).

        Args:
            elapsed, began: seconds of wall clock spent, and those of them before the first step.
            items: to train on, of the new data.

        Returns:
            the terms to train under, whose `steps` are counted anew where the batch changed alone; what changed, in words.
        """
        out, notes = replace(self, **{k: getattr(new, k) for k in ("batch", "steps", "minutes", "data")}), []
        if new.batch != self.batch:
            out = replace(out, shift=self.shift + step * (self.batch - new.batch))
            if new.steps and new.steps == self.steps:
                left = self.samples(self.steps) - out.shift
                out = replace(out, steps=max(step, math.ceil(left / new.batch)))
            notes.append(
                f"{new.batch} samples a step, not {self.batch}, from step {step:,} on: the same samples in the same order"
                + (f", {out.steps:,} steps in all" if out.steps else "")
            )
        if self.data and new.data != self.data:
            seen = int(out.samples(step))
            out = replace(out, passed=math.ceil(seen / items) * items - seen, since=step)
            notes.append(f"other data from step {step:,} on: they begin with an epoch of their own")
        if out._is_longer_than(self):
            spent = out.share(step) if out.steps else (elapsed - began) / max(60 * (out.minutes or 0) - began, 1e-9)
            out = replace(out, warmed=spent if step else 0.0)
            budget = f"{out.steps:,} steps" if out.steps else f"{out.minutes:g} min"
            notes.append(
                f"trained longer, {budget} in all: {spent:.0%} of it is done, and the learning rate goes on from there"
            )
        return out, notes

    def _is_longer_than(self, other: "Terms") -> bool:
        if self.steps and other.steps:
            return self.samples(self.steps) >= other.samples(other.steps) + self.batch
        return bool(self.minutes and other.minutes and self.minutes > other.minutes)

"""The one figure by which a search judges its trials, and who gives up the hopeless ones.

The figure is the held-out loss under the default recipe's time law and weight, at noise that never changes: whatever a trial
changes, it means the same.
"""

from collections.abc import Callable

from torch import Tensor

from langevin.config import TrainConfig
from langevin.data.dataset import Dataset
from langevin.diffusion import Condition, Denoiser
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.evaluation.noise_levels import held_out_loss
from langevin.recipes import plan
from langevin.recipes.study import Trial
from langevin.recipes.watch import Began, Event, Stepped
from langevin.registry import build

SHARES = (0.25, 0.5, 0.75)
"""Of a trial's budget, after which a hopeless one is given up: above the median of what others had then."""


class PrunedError(Exception):
    """The trial is hopeless."""


class Measure:
    """The figure, for a recipe's data."""

    def __init__(self, base: TrainConfig, dataset: Dataset) -> None:
        plain = plan.resolve(TrainConfig(data=base.data, steps=1), dataset)
        self.law = build(dict(plain.times), TimeLaw)
        self.weight = build(dict(plain.weight or {}), Weight)

    def __call__(self, denoiser: Denoiser, unseen: tuple[Tensor, Condition]) -> float:
        """The mean over items (N, ...) and levels."""
        return held_out_loss(denoiser, *unseen, self.law, self.weight).mean


class Judge:
    """A watcher that measures a trial at fixed shares of its budget; raises PrunedError where it is hopeless.

    Args:
        progress: called at every step.
    """

    def __init__(self, trial: Trial, measure: Measure, progress: Callable[[Trial, Stepped], None]) -> None:
        self._trial, self._measure, self._progress = trial, measure, progress
        self._look = len(trial.seen)
        self._unseen: tuple[Tensor, Condition] | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Began():
                self._unseen = event.unseen
                self._due(event)  # a look that was due when the run was stopped
            case Stepped():
                self._progress(self._trial, event)
                self._due(event)

    def _due(self, event: Began | Stepped) -> None:
        assert self._unseen is not None
        while self._look < len(SHARES) and event.share >= SHARES[self._look]:
            held_out = self._measure(event.averaged().denoiser, self._unseen)
            self._look += 1
            if self._trial.report(self._look, held_out):
                share = SHARES[self._look - 1]
                raise PrunedError(f"held-out {held_out:.4f} after {share:.0%} of the budget, more than most had then")

"""Every figure with its floor: what real, unseen items score in its place, at the same count; and with its interval.

Estimates of distances from n items are too large (Frechet by about c/n), differently for every n, set and feature. So a
value alone says nothing; beside the floor it says how far samples are from what a perfect model would get. A value well
below the floor is no triumph: it means samples nearer to the training items than new real items are, that is, copies.

`Yardstick.of(train, held_out, count)` does once what depends on real items only; `measure(generated)` gives figures.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from langevin.errors import DataError
from langevin.evaluation.cached import Kept, key_of
from langevin.evaluation.features import Array, Classical, Features, Gradients, Items, Pca, content
from langevin.evaluation.metrics.base import Estimate, Metric, Named
from langevin.evaluation.metrics.frechet import MOST_DIM, Frechet, difference
from langevin.evaluation.metrics.kernel import Kernel
from langevin.evaluation.metrics.prdc import Prdc
from langevin.evaluation.metrics.spectrum import Spectrum, rings
from langevin.evaluation.neighbours import nearest

T = TypeVar("T")
LEAST = 16  # below that many items on either side a distance of laws is noise
ITEMS_A_DIMENSION = 4  # features keep at most count / 4 dimensions, so that covariances are far from singular
SPECTRUM_ITEMS = 4_000  # whose spectra are taken
COPY_SEARCH = 1_000  # items whose nearest training item is sought
METRICS: tuple[Metric, ...] = (Kernel(), Prdc())
"""What is taken in the last of the features, beside the Frechet distance that is taken in each."""


@dataclass(frozen=True)
class Figure:
    """A figure of generated items.

    Attributes:
        value: of generated items; `error` is its standard error for this count, or None where none is known.
        floor: the same figure of `count` real items that the model has not seen; `floor_error` its standard error.
        low, high: hold the truth in 95 of 100 cases. The truth is what infinitely many items would give where the value's bias
            is known (a Frechet distance, which is too large from few items), else the mean over sets of this count.
        count: how many items both stand on.
        reference: what both were held against.
    """

    name: str
    value: float
    floor: float
    count: int
    reference: str
    error: float | None = None
    higher_is_better: bool = False
    low: float | None = None
    high: float | None = None
    floor_error: float | None = None

    @property
    def gap(self) -> float:
        """How far the value lies on the bad side of the floor, in standard errors of both; nan without errors."""
        if self.error is None or self.floor_error is None:
            return math.nan
        worse = (self.floor - self.value) if self.higher_is_better else (self.value - self.floor)
        spread = math.hypot(self.error, self.floor_error)
        return worse / spread if spread else math.copysign(math.inf, worse) if worse else 0.0


def shown_on(made: Named, real: Named, reference: str) -> Figure:
    """The figure of an estimate of generated items beside that of real ones."""
    low, high = made.estimate.interval
    distance = not made.higher_is_better and made.estimate.value >= 0
    return Figure(
        made.name,
        made.estimate.value,
        real.estimate.value,
        made.counts[1],
        reference,
        made.estimate.error,
        made.higher_is_better,
        max(low, 0.0) if distance else low,
        high,
        real.estimate.error,
    )


def describe_with(items: Items) -> list[type[Classical]]:
    """The features that apply to items of this shape; pictures from 8 x 8 on have gradients as the last."""
    is_picture = items.ndim == 4 and min(items.shape[1:3]) >= 8
    return [Pca, Gradients] if is_picture else [Pca]


@dataclass(frozen=True, eq=False)
class Yardstick:
    """The real side of all figures. Made by `Yardstick.of`.

    train: reference items; fresh: real items apart from them; both (N, ...) in the data's own type.
    has_unseen: whether `fresh` was kept from training (else it is the other half of the training set).
    extra: features beside those that need nothing but arithmetic; figures are taken in the last of all.
    metrics: what is taken in the last of the features.
    kept: where what follows from the training items alone is kept.
    """

    train: Items
    fresh: Items
    has_unseen: bool
    count: int
    seed: int
    heed: Callable[[], None] = lambda: None
    extra: Sequence[Features] = ()
    metrics: Sequence[Metric] = field(default=METRICS)
    kept: Kept = field(default=Kept())

    @classmethod
    def of(
        cls,
        train: Items,
        held_out: Items | None,
        count: int,
        seed: int = 0,
        heed: Callable[[], None] = lambda: None,
        extra: Sequence[Features] = (),
        metrics: Sequence[Metric] = METRICS,
        kept: Kept | None = None,
    ) -> "Yardstick":
        """For figures of at most `count` generated items.

        The reference is the whole training set and the floor is taken from held-out items, `count` of them or, where
        there are fewer, all of them, and then figures take no more generated items either. Only where there are fewer
        than 16 held-out items is the training set cut into two halves at random: one is the reference, the other gives
        the floor. Samples of a model that saw both are then held against half of what it saw, as the other half is.
        Raises DataError where that leaves fewer than 16 items on a side.
        """
        rng, train = np.random.default_rng(seed), np.asarray(train)
        has_unseen = held_out is not None and len(held_out) >= LEAST
        if held_out is not None and has_unseen:
            fresh = np.asarray(held_out)[rng.permutation(len(held_out))[:count]]
        else:
            order, half = rng.permutation(len(train)), len(train) // 2
            train, fresh = train[order[:half]], train[order[half:][:count]]
        count = len(fresh)
        if min(count, len(train)) < LEAST:
            raise DataError(
                f"too few items to compare: {count} generated ones with {len(train)} real ones",
                help=f"{LEAST} generated items and {2 * LEAST} real ones are the least; hundreds say more",
            )
        return cls(train, fresh, has_unseen, count, seed, heed, extra, metrics, kept or Kept())

    @cached_property
    def features(self) -> list[Features]:
        """Fitted on the reference, at most 64 dimensions and a quarter of the smaller side; then the extra ones, those of very
        many dimensions first."""
        dim = min(64, min(self.count, len(self.train)) // ITEMS_A_DIMENSION)
        fitted = [self._heeding(kind.fit, self.train, dim) for kind in describe_with(self.train)]
        long = [features for features in self.extra if features.dim > MOST_DIM]
        return [*long, *fitted, *(features for features in self.extra if features.dim <= MOST_DIM)]

    @cached_property
    def _train(self) -> list[Array]:
        named = content(self.train)

        def described(features: Features) -> Array:
            made = self.kept.get(key_of("described", features.digest, named), lambda: {"x": features(self.train)})
            return np.asarray(made["x"], np.float64)

        return [self._heeding(described, features) for features in self.features]

    @cached_property
    def _some(self) -> NDArray[np.intp]:
        """Indices of training items in random order."""
        return np.random.default_rng(self.seed + 1).permutation(len(self.train))

    def measure(self, generated: Items) -> list[Figure]:
        """Figures of the first `count` generated items (n, ...), n at least 16, same type and shape as the real ones."""
        generated = np.asarray(generated)
        if generated.shape[1:] != self.train.shape[1:] or generated.dtype != self.train.dtype:
            raise DataError(
                f"generated items are {generated.dtype} {generated.shape[1:]}, "
                f"real ones {self.train.dtype} {self.train.shape[1:]}"
            )
        if generated.dtype.kind == "f" and not np.isfinite(generated).all():
            raise DataError("generated items hold values that are not finite")
        if len(generated) < self.count:
            if len(generated) < LEAST:
                raise DataError(f"{len(generated)} generated items are too few", help=f"make {LEAST} or more")
            return replace(self, fresh=self.fresh[: len(generated)], count=len(generated)).measure(generated)
        return [
            shown_on(made, real, self._reference(made.counts[0]))
            for made, real in zip(self._figures(generated[: self.count]), self._floors, strict=True)
        ]

    def difference(self, generated: Items, other: Items) -> Estimate:
        """How far the last features' Frechet distance of the first `count` generated items lies above that of others, which
        come from the same seeds one by one.
        """
        last = self.features[-1]
        made, beside = (self._heeding(last, np.asarray(items)[: self.count]) for items in (generated, other))
        return difference(self._train[-1], made, beside)

    @cached_property
    def _floors(self) -> list[Named]:
        return self._figures(self.fresh)

    def _figures(self, items: Items) -> list[Named]:
        """Every figure of any `count` items."""
        described = [self._heeding(features, items) for features in self.features]
        found: list[Named] = []
        for features, real, made in zip(self.features, self._train, described, strict=True):
            name = features.frechet_name or f"frechet[{features.name}]"
            found += [n._replace(name=name) for n in self._heeding(Frechet().measure, real, made)]
        last, real = self.features[-1].name, self._train[-1][self._some]
        for metric in self.metrics:
            found += self._in(last, metric, real, described[-1])
        if items.ndim > 2 and min(items.shape[1:-1]) >= 8:
            found += self._heeding(Spectrum().measure, self._rings, rings(items))
        return [*found, self._copies(items)] if self.has_unseen else found

    def _in(self, features: str, metric: Metric, real: Array, made: Array) -> list[Named]:
        return [n._replace(name=f"{n.name}[{features}]") for n in self._heeding(metric.measure, real, made)]

    def _heeding(self, work: Callable[..., T], *given: Any) -> T:
        self.heed()
        return work(*given)

    def _reference(self, used: int) -> str:
        return f"{'training' if self.has_unseen else 'half of training'} ({used:,})"

    @cached_property
    def _rings(self) -> Array:
        return rings(self.train[np.sort(self._some[:SPECTRUM_ITEMS])])

    @cached_property
    def _unseen_distances(self) -> Array:
        return nearest(self.fresh[:COPY_SEARCH], self.train)[1]

    def _copies(self, items: Items) -> Named:
        """Items nearer to a training item than all but one in a hundred of real unseen items are."""
        limit = np.quantile(self._unseen_distances, 0.01)
        distances = self._unseen_distances if items is self.fresh else nearest(items[:COPY_SEARCH], self.train)[1]
        return Named("copies", share(distances <= limit), (len(self.train), len(distances)))


def share(hits: NDArray[np.bool_]) -> Estimate:
    """The share of hits (n,), with its binomial error; where all or none are hits, that of half an item more or less."""
    n, p = len(hits), float(hits.mean())
    q = min(max(p, 0.5 / n), 1 - 0.5 / n)
    return Estimate(p, float(np.sqrt(q * (1 - q) / n)))


def figures(
    train: Items, held_out: Items | None, generated: Items, seed: int = 0, heed: Callable[[], None] = lambda: None
) -> list[Figure]:
    """All figures of generated items (n, ...) against real training and held-out items of the same shape and type.

    Pictures (N, H, W, C) from 8 x 8 on: frechet in pca and gradients, kernel and precision, recall, density, coverage in
    gradients, spectrum, copies; anything else: the same in pca. Which items the floor and the reference take is said at
    `Yardstick.of`; the seed decides it and nothing else is random. `heed` is called between two parts of the work; what it
    raises ends it.
    """
    return Yardstick.of(train, held_out, len(generated), seed, heed).measure(generated)


def table(figures: Sequence[Figure]) -> str:
    """The figures as plain text, one a line under a heading, value and floor side by side."""
    head = ("figure", "generated", "95 %", "real floor", "items", "against")
    rows = [head] + [
        (
            f"{f.name} {'↑' if f.higher_is_better else '↓'}",
            f"{f.value:.4g}",
            "" if f.low is None or f.high is None else f"{f.low:.3g} to {f.high:.3g}",
            f"{f.floor:.4g}",
            f"{f.count:,}",
            f.reference,
        )
        for f in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

"""Every figure with its floor: what real, unseen items score in its place, at the same count.

Estimates of distances from n items are too large (Frechet by about c/n), differently for every n, set and feature. So a
value alone says nothing; beside the floor it says how far samples are from what a perfect model would get. A value well
below the floor is no triumph: it means samples nearer to the training items than new real items are, that is, copies.

`Yardstick.of(train, held_out, count)` does once what depends on real items only; `measure(generated)` gives figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from langevin.errors import DataError
from langevin.evaluation.features import Array, Features, Gradients, Items, Pca
from langevin.evaluation.frechet import frechet_distance, moments
from langevin.evaluation.kernel import kernel_distance
from langevin.evaluation.neighbours import nearest
from langevin.evaluation.prdc import precision_recall

T = TypeVar("T")
LEAST = 16  # below that many items on either side a distance of laws is noise
ITEMS_A_DIMENSION = 4  # features keep at most count / 4 dimensions, so that covariances are far from singular
KERNEL_REFERENCE = 5_000  # matrices between items: that many training items at most
NEIGHBOURS = 2_000  # manifolds of neighbours in features: that many items at most
COPY_SEARCH = 1_000  # items whose nearest training item is sought
LEAST_SCALE = 0.1  # of the leading component: the kernel divides weaker ones by no less
FOLDS = 10  # of the jackknife


@dataclass(frozen=True)
class Figure:
    """A figure of generated items.

    value: of generated items; `error` is its standard error for this count, or None where none is known.
    floor: the same figure of `count` real items that the model has not seen.
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


def describe_with(items: Items) -> list[type[Features]]:
    """The features that apply to items of this shape; pictures from 8 x 8 on have gradients as the last."""
    is_picture = items.ndim == 4 and min(items.shape[1:3]) >= 8
    return [Pca, Gradients] if is_picture else [Pca]


@dataclass(frozen=True, eq=False)
class Yardstick:
    """The real side of all figures. Made by `Yardstick.of`.

    train: reference items; fresh: real items apart from them; both (N, ...) in the data's own type.
    has_unseen: whether `fresh` was kept from training (else it is the other half of the training set).
    """

    train: Items
    fresh: Items
    has_unseen: bool
    count: int
    seed: int
    heed: Callable[[], None] = lambda: None

    @classmethod
    def of(
        cls,
        train: Items,
        held_out: Items | None,
        count: int,
        seed: int = 0,
        heed: Callable[[], None] = lambda: None,
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
        return cls(train, fresh, has_unseen, count, seed, heed)

    @cached_property
    def features(self) -> list[Features]:
        """Fitted on the reference, at most 64 dimensions and a quarter of the smaller side."""
        dim = min(64, min(self.count, len(self.train)) // ITEMS_A_DIMENSION)
        return [kind.fit(self.train, dim) for kind in describe_with(self.train)]

    @cached_property
    def _train(self) -> list[Array]:
        return [self._heeding(features, self.train) for features in self.features]

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
            Figure(made.name, made.value, real.value, made.count, made.reference, made.error, made.higher_is_better)
            for made, real in zip(self._figures(generated[: self.count]), self._floors, strict=True)
        ]

    @cached_property
    def _floors(self) -> list[Figure]:
        return self._figures(self.fresh)

    def _figures(self, items: Items) -> list[Figure]:
        """Every figure of any `count` items, floors left open."""
        described = [self._heeding(features, items) for features in self.features]
        found = [
            self._heeding(self._frechet, *each) for each in zip(self.features, self._train, described, strict=True)
        ]
        name, real, made = self.features[-1].name, self._train[-1], described[-1]
        found += [self._heeding(self._kernel, name, real, made)]
        found += self._heeding(self._precision_recall, name, real, made)
        return [*found, self._copies(items)] if self.has_unseen else found

    def _heeding(self, work: Callable[..., T], *given: Any) -> T:
        self.heed()
        return work(*given)

    def _figure(self, name: str, value: float, error: float, count: int, used: int, higher: bool = False) -> Figure:
        reference = f"{'training' if self.has_unseen else 'half of training'} ({used:,})"
        return Figure(name, value, float("nan"), count, reference, error, higher)

    def _frechet(self, features: Features, real: Array, made: Array) -> Figure:
        mean, cov = moments(real)

        def distance(x: Array) -> float:
            return frechet_distance(*moments(x), mean, cov)

        name = f"frechet[{features.name}]"
        return self._figure(name, distance(made), _jackknife(distance, made), len(made), len(real))

    def _kernel(self, name: str, real: Array, made: Array) -> Figure:
        center, deviation = real.mean(0), real.std(0)
        scale = np.maximum(deviation, LEAST_SCALE * deviation[0]) if deviation[0] > 0 else 1.0
        some = real[self._some[:KERNEL_REFERENCE]]
        value, error = kernel_distance((made - center) / scale, (some - center) / scale)
        return self._figure(f"kernel[{name}]", value, error, len(made), len(some))

    def _precision_recall(self, name: str, real: Array, made: Array) -> list[Figure]:
        used = min(self.count, len(real), NEIGHBOURS)
        shares = precision_recall(real[self._some[:used]], made[:used])
        return [
            self._figure(f"{kind}[{name}]", share, _binomial(share, used), used, used, higher=True)
            for kind, share in zip(("precision", "recall"), shares, strict=True)
        ]

    @cached_property
    def _unseen_distances(self) -> Array:
        return nearest(self.fresh[:COPY_SEARCH], self.train)[1]

    def _copies(self, items: Items) -> Figure:
        """Items nearer to a training item than all but one in a hundred of real unseen items are."""
        limit = np.quantile(self._unseen_distances, 0.01)
        distances = self._unseen_distances if items is self.fresh else nearest(items[:COPY_SEARCH], self.train)[1]
        share, used = float((distances <= limit).mean()), len(distances)
        return self._figure("copies", share, _binomial(share, used), used, len(self.train))


def _jackknife(estimate: Callable[[Array], float], items: Array) -> float:
    """Standard error of an estimate by leaving out one tenth of the items at a time."""
    folds = np.arange(len(items)) % FOLDS
    values = np.array([estimate(items[folds != fold]) for fold in range(FOLDS)])
    return float(np.sqrt((FOLDS - 1) * values.var()))


def _binomial(share: float, count: int) -> float:
    return float(np.sqrt(share * (1 - share) / count))


def figures(
    train: Items, held_out: Items | None, generated: Items, seed: int = 0, heed: Callable[[], None] = lambda: None
) -> list[Figure]:
    """All figures of generated items (n, ...) against real training and held-out items of the same shape and type.

    Pictures (N, H, W, C) from 8 x 8 on: frechet in pca and gradients, kernel, precision and recall in gradients, copies;
    anything else: the same in pca. Which items the floor and the reference take is said at `Yardstick.of`; the seed
    decides it and nothing else is random. `heed` is called between two parts of the work; what it raises ends it.
    """
    return Yardstick.of(train, held_out, len(generated), seed, heed).measure(generated)


def table(figures: Sequence[Figure]) -> str:
    """The figures as plain text, one a line under a heading, value and floor side by side."""
    head = ("figure", "generated", "real floor", "items", "against")
    rows = [head] + [
        (
            f"{f.name} {'↑' if f.higher_is_better else '↓'}",
            f"{f.value:.4g}" + ("" if f.error is None else f" ± {f.error:.1g}"),
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

"""What a metric is, and how far its value may be trusted.

A value from n items wanders with the items (its standard error), and may lie off in the mean (its bias). Two ways find them:

**The jackknife**, for smooth functions of means. With theta_g the value without group g of G, summed over the two sides,

    bias = (G - 1) (mean_g theta_g - theta)        error^2 = (G - 1) mean_g (theta_g - mean theta_g)^2

**Halves**, for what neighbours decide: both sets are cut in two at random, and the two halves are two trials of the same thing
with half the items. If theta_1, theta_2 are their values, error^2 = mean over cuts of (theta_1 - theta_2)^2 / 4, for a variance
that falls like 1/n.

A bootstrap would draw items twice: nearest neighbours at distance 0, and the bias of a Frechet distance once more. The jackknife
in turn overstates the error of what neighbours decide, by half.

Source: Quenouille 1956; Efron and Stein 1981, "The jackknife estimate of variance"; Politis and Romano 1994 for parts of samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

GROUPS = 20
CUTS = 20
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A value with its standard error, and by how much it exceeds that of the two laws in the mean, as far as known."""

    value: float
    error: float
    bias: float = 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """That holds the truth in 95 of 100 cases: what infinitely many items would give where the bias is known, else
        the mean over sets of these counts."""
        half = float(stdtrit(GROUPS, 0.5 + CONFIDENCE / 2)) * self.error
        return self.value - self.bias - half, self.value - self.bias + half


class Named(NamedTuple):
    """An estimate under its name; `counts` are the items (real, generated) that it stands on."""

    name: str
    estimate: Estimate
    counts: tuple[int, int]
    higher_is_better: bool = False


class Metric(ABC):
    """Compares two sets of features. Subclasses are frozen dataclasses of their settings."""

    @abstractmethod
    def measure(self, real: Array, made: Array) -> list[Named]:
        """Features real (n, d) and generated (m, d), each in random order, so that a part of a side may stand for it."""


def groups(count: int, seed: int = 0) -> list[Rows]:
    """`count` items dealt out at random into 20 groups of like size, fewer where there are fewer items."""
    order = np.random.default_rng((seed, count)).permutation(count)
    return [np.sort(order[g::GROUPS]) for g in range(min(GROUPS, count))]


def jackknife(value: Array, *sides: Array, biased: bool = False) -> list[Estimate]:
    """Estimates of k values (k,) from what they were without each group, (G, k) for each side."""
    bias, variance = np.zeros_like(value), np.zeros_like(value)
    for side in sides:
        mean = side.mean(0)
        bias += (len(side) - 1) * (mean - value)
        variance += (len(side) - 1) * ((side - mean) ** 2).mean(0)
    bias = bias if biased else np.zeros_like(bias)
    return [Estimate(float(v), float(np.sqrt(s)), float(b)) for v, s, b in zip(value, variance, bias, strict=True)]


def halves(statistic: Callable[[Rows, Rows], Array], real: int, made: int) -> Array:
    """(k,) standard errors of k values, from values of halves of the sets of `real` and `made` items.

    Args:
        statistic: of the rows of either side, (k,) values.
    """
    rng, squares = np.random.default_rng((real, made)), []
    for _ in range(CUTS):
        x, y = rng.permutation(real), rng.permutation(made)
        pair = [statistic(np.sort(x[s::2]), np.sort(y[s::2])) for s in (0, 1)]
        squares.append((pair[0] - pair[1]) ** 2)
    return np.asarray(np.sqrt(np.mean(squares, axis=0) / 4))

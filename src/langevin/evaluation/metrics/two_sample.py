"""Classifier two-sample test: how often a classifier tells a generated item from a real one that it has not seen.

1/2 where both sets follow one law, 1 where no item could be mistaken. The classifier is a logistic regression on the features
and their squares; every item is judged by one that was fitted without it (five folds of equal halves).

Folds share what they learn from, and so err together. Nadeau and Bengio 2003, "Inference for the generalization error",
equation 4, add 5/4 of the variance for that, which is too much by half: on normal laws half of it met the true spread.

Source: Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests" (arXiv:1610.06545).
"""

import warnings
from dataclasses import dataclass

import numpy as np

from langevin.errors import DataError
from langevin.evaluation.metrics.base import Array, Estimate, Metric, Named

FOLDS = 5


@dataclass(frozen=True)
class TwoSample(Metric):
    """The share of right answers at equal counts, `most` items of a side at most."""

    most: int = 2_000

    def measure(self, real: Array, made: Array) -> list[Named]:
        used = min(len(real), len(made), self.most)
        right = told_apart(real[:used], made[:used])
        spread = right.mean(1).var(ddof=1) / used * (1 + 0.5 * FOLDS / (FOLDS - 1))
        error = float(np.sqrt(spread))
        return [Named("told apart", Estimate(float(right.mean()), error), (used, used))]


def told_apart(real: Array, made: Array) -> Array:
    """(n, 2) for each pair of a real and a generated item, n each, whether they were told right: 1 or 0."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(real) != len(made) or len(real) < 2 * FOLDS:
        raise DataError(f"a two-sample test needs {2 * FOLDS} items and more, as many of each set")
    scale = StandardScaler().fit(real)
    a, b = (np.hstack([x, x**2]) for x in map(scale.transform, (real, made)))
    fold = np.arange(len(real)) % FOLDS
    right = np.zeros((len(real), 2))
    for k in range(FOLDS):
        seen, asked = fold != k, fold == k
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(np.concatenate([a[seen], b[seen]]), np.repeat([0, 1], seen.sum()))
        right[asked, 0] = classifier.predict(a[asked]) == 0
        right[asked, 1] = classifier.predict(b[asked]) == 1
    return right

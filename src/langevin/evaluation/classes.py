"""What a classifier that learned from real items says of samples, and what one that learned from samples says of real items.

    label agreement   share of samples in the class that they were asked for; the floor is the share of real held-out items
    class score       exp of the mean of KL(p(c | x), p(c)): how many classes there are and how clearly each item is one of them,
                      1 to their number (the formula of the Inception score, with a classifier of these data)
    trained on samples   accuracy on real held-out items of a classifier that has seen samples alone; the floor is that of one
                      which has seen as many real items (classification accuracy score)

Source: Salimans et al. 2016 (arXiv:1606.03498), section 4; Ravuri and Vinyals 2019 (arXiv:1905.10887).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from langevin.errors import DataError
from langevin.evaluation.features import Array, Items
from langevin.evaluation.figures import Figure, share, shown_on
from langevin.evaluation.learned import Learned, learn
from langevin.evaluation.metrics.base import Estimate, Named, groups, jackknife

Labels = NDArray[np.integer]
BUDGET = 32_000
"""Items that a classifier sees which is trained for one figure."""


def agreement(classifier: Learned, held_out: Items, known: Labels, generated: Items, labels: Labels) -> Figure:
    """Of generated items (n, ...) with labels (n,); negative ones are unknown and left out."""
    right = share(classifier.classify(generated[labels >= 0]) == labels[labels >= 0])
    floor = share(classifier.classify(held_out[known >= 0]) == known[known >= 0])
    counts = (int((known >= 0).sum()), int((labels >= 0).sum()))
    name = f"label agreement[{classifier.name}]"
    return shown_on(Named(name, right, counts, True), Named(name, floor, counts, True), f"held-out ({counts[0]:,})")


def score(probabilities: Array) -> float:
    """exp of the mean Kullback-Leibler divergence of the rows of (n, classes) from their mean."""
    p = np.clip(probabilities, 1e-16, 1)
    return float(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))


def class_score(classifier: Learned, fresh: Items, generated: Items) -> Figure:
    """At equal counts of real and generated items (n, ...)."""
    count = min(len(fresh), len(generated))
    name = f"class score[{classifier.name}]"
    made, real = (_scored(classifier.probabilities(x[:count])) for x in (generated, fresh))
    return shown_on(Named(name, made, (count, count), True), Named(name, real, (count, count), True), "none")


def _scored(probabilities: Array) -> Estimate:
    left = [[score(np.delete(probabilities, rows, 0))] for rows in groups(len(probabilities))]
    return jackknife(np.array([score(probabilities)]), np.array(left), biased=True)[0]


def trained_on_samples(
    real: tuple[Items, Labels],
    held_out: tuple[Items, Labels],
    generated: tuple[Items, Labels],
    classes: int,
    *,
    seed: int = 0,
    budget: int | None = None,
    heed: Callable[[], None] = lambda: None,
) -> Figure:
    """Accuracy on held-out items; each argument is items (n, ...) with labels (n,), negative ones unknown.

    Raises DataError where fewer than 16 items or two classes have labels.
    """
    sets = [(np.asarray(x)[y >= 0], y[y >= 0]) for x, y in (real, held_out, generated)]
    (train, train_labels), (asked, known), (made, labels) = sets
    if not len(asked):
        raise DataError("no held-out item has a label")
    count = min(len(made), len(train))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(train))[:count])
    found = []
    for items, which in ((made[:count], labels[:count]), (train[chosen], train_labels[chosen])):
        network = learn(items, which, classes, seed=seed, budget=budget or BUDGET, heed=heed)
        found.append(share(network.classify(asked) == known))
    name, counts = "trained on samples", (len(asked), count)
    return shown_on(
        Named(name, found[0], counts, True), Named(name, found[1], counts, True), f"held-out ({len(asked):,})"
    )

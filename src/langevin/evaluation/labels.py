"""Do conditional samples show what they were asked for? A classifier that has seen real training items only says."""

import numpy as np
from numpy.typing import NDArray

from langevin.errors import DataError
from langevin.evaluation.features import Features, Items
from langevin.evaluation.figures import LEAST, Figure, describe_with, share, shown_on
from langevin.evaluation.metrics.base import Named


class LabelJudge:
    """Finds the class of an item: that of most of the five nearest training items in the features of `figures`.

    Args:
        train, held_out: items (N, ...); their labels are integers (N,).
    """

    def __init__(self, train: Items, train_labels: Items, held_out: Items, held_out_labels: Items) -> None:
        from sklearn.neighbors import KNeighborsClassifier  # a second to import, and only this needs it

        for name, items, known in (("training", train, train_labels), ("held-out", held_out, held_out_labels)):
            if len(items) != len(known):
                raise DataError(f"{len(items)} {name} items but {len(known)} labels")
        self._features: Features = describe_with(train)[-1].fit(train)
        self._classifier = KNeighborsClassifier(min(5, len(train)))
        self._classifier.fit(self._features(train), np.asarray(train_labels))
        self._train, self._held_out, self._known = len(train), held_out, np.asarray(held_out_labels)

    @classmethod
    def among(
        cls, items: Items, labels: Items, train: NDArray[np.integer], held_out: NDArray[np.integer]
    ) -> "LabelJudge | None":
        """Made from rows of items whose label is known (not -1); None where either side has fewer than 16."""
        train, held_out = (rows[labels[rows] >= 0] for rows in (train, held_out))
        if min(len(train), len(held_out)) < LEAST:
            return None
        return cls(items[train], labels[train], items[held_out], labels[held_out])

    def agreement(self, generated: Items, labels: Items) -> Figure:
        """Share of generated items that are found in the class they were made for, in [0, 1].

        The floor is its accuracy on the first held-out items, as many as generated where there are so many: agreement beyond
        it means samples more typical than real ones, not better ones.
        """
        if len(generated) != len(labels):
            raise DataError(f"{len(generated)} generated items but {len(labels)} labels")
        count = min(len(generated), len(self._held_out))
        right = share(self._found(generated) == np.asarray(labels))
        floor = share(self._found(self._held_out[:count]) == self._known[:count])
        name, used = f"label agreement[{self._features.name}]", (self._train, len(generated))
        real, made = Named(name, floor, used, True), Named(name, right, used, True)
        return shown_on(made, real, f"training ({self._train:,})")

    def _found(self, items: Items) -> Items:
        return np.asarray(self._classifier.predict(self._features(items)))


def label_agreement(
    train: Items, train_labels: Items, held_out: Items, held_out_labels: Items, generated: Items, labels: Items
) -> Figure:
    """The agreement that a `LabelJudge` of these real items finds."""
    return LabelJudge(train, train_labels, held_out, held_out_labels).agreement(generated, labels)

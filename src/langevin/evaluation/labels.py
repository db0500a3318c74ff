"""Do conditional samples show what they were asked for? A classifier that has seen real training items only says."""

import numpy as np

from langevin.errors import DataError
from langevin.evaluation.features import Features, Items
from langevin.evaluation.figures import Figure, describe_with, share, shown_on
from langevin.evaluation.metrics.base import Named


def label_agreement(
    train: Items, train_labels: Items, held_out: Items, held_out_labels: Items, generated: Items, labels: Items
) -> Figure:
    """Share of generated items that the classifier puts in the class they were made for, in [0, 1].

    Labels are integers (n,). The classifier takes the majority of the five nearest training items in the features of
    `figures`. The floor is its accuracy on the first held-out items, as many as generated where there are so many:
    agreement beyond it means samples more typical than real ones, not better ones.
    """
    from sklearn.neighbors import KNeighborsClassifier  # a second to import, and only this needs it

    for name, items, known in (("training", train, train_labels), ("held-out", held_out, held_out_labels)):
        if len(items) != len(known):
            raise DataError(f"{len(items)} {name} items but {len(known)} labels")
    if len(generated) != len(labels):
        raise DataError(f"{len(generated)} generated items but {len(labels)} labels")
    features: Features = describe_with(train)[-1].fit(train)
    classifier = KNeighborsClassifier(min(5, len(train))).fit(features(train), np.asarray(train_labels))
    count = min(len(generated), len(held_out))
    right = share(classifier.predict(features(generated)) == np.asarray(labels))
    floor = share(classifier.predict(features(held_out[:count])) == np.asarray(held_out_labels)[:count])
    name, used = f"label agreement[{features.name}]", (len(train), len(generated))
    return shown_on(Named(name, right, used, True), Named(name, floor, used, True), f"training ({len(train):,})")

"""Learned features on real digits: they know the classes, come out the same again, and stay away from what is held out."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from langevin.errors import DataError
from langevin.evaluation.learned import learn


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    return (data.images * 15).astype(np.uint8)[order][..., None], data.target[order]


@pytest.fixture(scope="module")
def classifier(digits):
    items, labels = digits
    return learn(items[:1000], labels[:1000], 10, held_out=(items[1000:], labels[1000:]), budget=16_000)


def test_it_finds_the_class_of_digits_it_has_not_seen(digits, classifier):
    items, labels = digits
    assert classifier.accuracy > 0.95
    assert classifier.accuracy == (classifier.classify(items[1000:]) == labels[1000:]).mean()
    np.testing.assert_allclose(classifier.probabilities(items[:50]).sum(1), 1.0, rtol=1e-12)


def test_features_hold_the_classes(digits, classifier):
    items, labels = digits
    found = classifier(items)
    assert found.shape == (1797, 64)
    assert LogisticRegression(max_iter=2000).fit(found[:1000], labels[:1000]).score(found[1000:], labels[1000:]) > 0.94


def test_the_same_again_and_another_with_another_seed_or_other_items(digits):
    items, labels = digits
    torch.manual_seed(11)
    one = learn(items[:200], labels[:200], 10, budget=640)
    torch.manual_seed(12)
    before = torch.get_rng_state()
    same = learn(items[:200], labels[:200], 10, budget=640)
    assert torch.equal(before, torch.get_rng_state())  # nobody else's numbers are drawn
    assert one.digest == same.digest
    assert learn(items[:200], labels[:200], 10, budget=640, seed=1).digest != one.digest
    assert learn(items[1:201], labels[1:201], 10, budget=640).digest != one.digest


def test_an_autoencoder_says_items_again_better_than_their_mean(digits):
    items, _ = digits
    made = learn(items[:1000], budget=32_000)
    shown = made._shown(items[1000:])
    with torch.no_grad():
        left = float(((made.head(made.encoder(shown)) - shown) ** 2).mean())
    assert made.name == "autoencoder"
    assert left < 0.5 * float(made._shown(items[1000:]).var(0).mean())
    with pytest.raises(DataError, match="without classes"):
        made.classify(items[:3])


def test_items_that_are_no_pictures():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 600)
    items = rng.normal(size=(600, 7)) + 2.5 * labels[:, None] * np.eye(7)[3]
    made = learn(items[:400], labels[:400], 2, held_out=(items[400:], labels[400:]), budget=6_400)
    assert made.accuracy > 0.8  # the best rule: 0.894


def test_unknown_labels_are_left_out_and_one_class_is_refused(digits):
    items, labels = digits
    some = np.where(labels[:200] < 5, labels[:200], -1)
    assert set(learn(items[:200], some, 10, budget=3200).classify(items[200:300])) <= set(range(5))
    with pytest.raises(DataError, match="two classes"):
        learn(items[:200], np.zeros(200, int), 1)

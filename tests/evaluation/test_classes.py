"""The judge of classes: the formula of the score, agreement by construction, and what a classifier learns from samples."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from langevin.errors import DataError
from langevin.evaluation.classes import agreement, class_score, score, trained_on_samples
from langevin.evaluation.learned import learn


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    return (data.images * 15).astype(np.uint8)[order][..., None], data.target[order]


@pytest.fixture(scope="module")
def judge(digits):
    items, labels = digits
    return learn(items[:900], labels[:900], 10, budget=8_000)


def test_score_is_one_where_nothing_is_told_and_the_number_of_classes_where_all_is():
    assert score(np.full((40, 5), 0.2)) == pytest.approx(1.0)
    assert score(np.eye(5).repeat(8, 0)) == pytest.approx(5.0)
    assert score(np.eye(5)[[0] * 40]) == pytest.approx(1.0)  # sure, but always of one class
    p = np.array([[0.9, 0.1], [0.1, 0.9]])
    assert score(p) == pytest.approx(2 * 0.9**0.9 * 0.1**0.1)  # exp(log 2 - entropy)


def test_agreement_is_the_share_of_right_answers_with_the_real_ones_beside(digits, judge):
    items, labels = digits
    new, asked = items[1300:], labels[1300:].copy()
    right = judge.classify(new)
    found = agreement(judge, items[900:1300], labels[900:1300], new, right)
    assert found.value == 1.0
    assert found.floor == (judge.classify(items[900:1300]) == labels[900:1300]).mean()
    assert found.low < 1.0 <= found.high + 0.01
    asked = np.where(np.arange(len(new)) % 2, right, (right + 1) % 10)
    assert agreement(judge, items[900:1300], labels[900:1300], new, asked).value == pytest.approx(0.5, abs=0.002)
    half = np.where(np.arange(len(new)) % 2, right, -1)  # unknown ones are left out
    assert agreement(judge, items[900:1300], labels[900:1300], new, half).value == 1.0


def test_class_score_falls_where_classes_are_lost(digits, judge):
    items, labels = digits
    all_of_them = class_score(judge, items[900:1300], items[1300:])
    some = class_score(judge, items[900:1300], items[labels <= 2][:400])
    assert all_of_them.value > 6
    assert some.value < 4
    assert abs(all_of_them.gap) < 4


def test_samples_with_wrong_classes_teach_nothing_and_real_ones_teach_as_much(digits):
    items, labels = digits
    real, held_out = (items[:600], labels[:600]), (items[600:900], labels[600:900])
    good = trained_on_samples(real, held_out, (items[900:1500], labels[900:1500]), 10, budget=4_800)
    assert good.value == pytest.approx(good.floor, abs=0.07)
    assert good.floor > 0.85
    mixed = np.random.default_rng(1).permutation(labels[900:1500])
    bad = trained_on_samples(real, held_out, (items[900:1500], mixed), 10, budget=4_800)
    assert bad.value < 0.3
    with pytest.raises(DataError):
        trained_on_samples(real, (held_out[0], np.full(300, -1)), (items[900:], labels[900:]), 10)

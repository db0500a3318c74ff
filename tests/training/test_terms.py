"""Another batch, other data, a longer budget: the order of samples goes on as its definition says."""

from dataclasses import replace

import numpy as np
import pytest

from langevin.data.order import stretch
from langevin.training.terms import Terms


def _then(old: Terms, step: int, items: int = 50, elapsed: float = 0.0, began: float = 0.0, **new) -> Terms:
    return old.then(replace(old, **new), step=step, elapsed=elapsed, began=began, items=items)[0]


def _seen(terms: Terms, steps: range, indices: np.ndarray) -> list[int]:
    taken = [stretch(7, indices, k * terms.batch + terms.offset, terms.batch) for k in steps]
    return np.concatenate(taken).tolist() if taken else []


def test_another_batch_sees_the_same_samples_in_the_same_order_and_as_many():
    indices, first = np.arange(100, 150), Terms(12, steps=40, data="a")
    second = _then(first, 10, batch=8)
    third = _then(second, 25, batch=30)
    assert second.steps == 10 + 360 // 8
    assert (first.samples(10), second.samples(10), third.samples(25)) == (120, 120, 240)
    mixed = _seen(first, range(10), indices) + _seen(second, range(10, 25), indices)
    mixed += _seen(third, range(25, third.steps), indices)
    assert mixed == stretch(7, indices, 0, 480).tolist()
    assert second.share(10) == first.share(10) == 0.25
    assert third.share(third.steps) == 1


def test_other_data_begin_with_an_epoch_and_every_item_is_seen_once_in_it():
    before, after = np.arange(50), np.arange(200, 237)
    old = Terms(12, steps=40, data="a")
    new = _then(old, 9, items=37, data="b")
    assert new.since == 9 and new.samples(9) == 108
    epoch = (9 * 12 + new.offset) // 37
    taken = _seen(new, range(9, 40), after)
    assert taken[:37] == stretch(7, after, epoch * len(after), len(after)).tolist()
    assert sorted(taken[37:74]) == after.tolist()
    assert _seen(old, range(9), before) == stretch(7, before, 0, 108).tolist()
    assert _then(new, 9, items=37, data="b") == new
    assert _then(_then(new, 20, items=37, batch=6), 20, items=37, batch=6).offset == _then(new, 20, batch=6).offset


def test_terms_found_again_after_a_kill_are_the_same():
    """They are a function of the checkpoint and the new terms alone, and taking them on twice changes nothing."""
    old = Terms(12, steps=40, data="a")
    new = _then(old, 10, items=31, batch=8, data="b", steps=100)
    assert _then(old, 10, items=31, batch=8, data="b", steps=100) == new
    assert _then(new, 10, items=31) == new


def test_a_longer_budget_follows_its_course_and_warms_up_from_where_it_stands():
    old = Terms(10, steps=100, data="a")
    assert [old.warmth(at, 0.02) for at in (0, 0.5, 1)] == [1, 1, 1]
    longer = _then(old, 100, steps=400)
    assert (longer.share(100), longer.warmed) == (0.25, 0.25)
    assert longer.warmth(0.25, 0.02) == 0 and longer.warmth(0.26, 0.02) == pytest.approx(0.5)
    assert longer.warmth(0.27 + 1e-9, 0.02) == longer.warmth(0.9, 0.02) == 1
    assert longer.warmth(0.25, 0) == 1
    shorter = _then(old, 30, steps=60)
    assert (shorter.warmed, shorter.share(30)) == (0, 0.5)
    assert _then(old, 0, steps=400).warmed == 0
    clocked = _then(Terms(10, minutes=10), 50, minutes=20, elapsed=620.0, began=20.0)
    assert clocked.warmed == pytest.approx(600 / 1180)


def test_without_changes_a_share_is_that_of_the_steps_to_the_bit():
    terms = Terms(7, steps=93)
    assert all(terms.share(k + half) == (k + half) / 93 for k in range(93) for half in (0, 0.5))

"""The audit for copies: exact in its level, and it names what was planted."""

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.datasets import load_digits

from langevin.errors import DataError
from langevin.evaluation.copies import NUM, Pool
from langevin.evaluation.features import Gradients


@pytest.fixture(scope="module")
def digits():
    images = (load_digits().images * 15).astype(np.uint8)[..., None]
    return images[np.random.default_rng(0).permutation(len(images))]


@pytest.mark.parametrize("shares", [(600, 600), (1000, 120)], ids=["halves", "few-held-out"])
def test_p_is_uniform_for_items_that_nobody_trained_on(digits, shares):
    """Resampled: other items are training items, held out and 'generated' each time."""
    rng, found = np.random.default_rng(77), []
    train, held_out = shares
    for k in range(120):
        order = rng.permutation(len(digits))
        pool = Pool(digits[order[:train]], digits[order[train : train + held_out]], seed=k)
        found.append(pool.audit(digits[order[train + held_out :][:200]]).p)
    assert kstest(found, "uniform").pvalue > 0.01


def test_hardly_anything_is_named_where_nothing_is_copied(digits):
    rng, named = np.random.default_rng(2), 0
    for _ in range(20):
        order = rng.permutation(len(digits))
        audit = Pool(digits[order[:1000]], digits[order[1000:1400]]).audit(digits[order[1400:]])
        named += len(audit.named)
    assert named <= 4  # of 7,940 items


@pytest.mark.parametrize("features", [None, Gradients])
def test_twenty_records_planted_a_hundred_times_are_all_named(digits, features):
    """Among as many new items; each a little noisier than the record."""
    rng = np.random.default_rng(3)
    train, held_out, new = digits[:1000], digits[1000:1400], digits[1400:]
    records = rng.choice(1000, 20, replace=False)
    planted = np.repeat(train[records], 100, axis=0).astype(int)
    planted = np.clip(planted + np.rint(rng.normal(0, 3, planted.shape)), 0, 255).astype(np.uint8)
    pool = Pool(train, held_out, features.fit(train, 64) if features else None)
    audit = pool.audit(np.concatenate([planted, new]))
    assert audit.p < 0.001
    assert audit.copies
    assert {item for item, _ in audit.sources} >= set(records.tolist())
    wrong = (audit.named >= 2000).sum()
    assert wrong <= 0.03 * len(audit.named)
    assert (audit.named < 2000).sum() > 1900
    np.testing.assert_array_equal(audit.index[:2000], np.repeat(records, 100))


def test_records_planted_in_the_training_set_count_once_and_are_named_when_they_come_again(digits):
    """20 records, 100 times each in the training set: beside 99 twins nothing would be close."""
    rng = np.random.default_rng(4)
    records = digits[:20]
    train = np.concatenate([digits[:1000], np.repeat(records, 99, axis=0)])
    train = train[rng.permutation(len(train))]
    made = np.concatenate([records, digits[1400:]])
    pool = Pool(train, digits[1000:1400])
    audit = pool.audit(made)
    assert set(range(20)) <= set(audit.named.tolist())
    assert {pool.repeats(item) for item, _ in audit.sources[:20]} >= {100}


def test_the_very_items_are_named_without_any_held_out(digits):
    audit = Pool(digits[:500], digits[:0]).audit(np.concatenate([digits[:30], digits[500:800]]))
    assert np.isnan(audit.p)
    assert set(range(30)) <= set(audit.named.tolist())
    assert len(audit.named) < 40


def test_share_that_is_nearer_to_training_is_as_expected_for_new_items(digits):
    audit = Pool(digits[:900], digits[900:1350]).audit(digits[1350:])
    assert audit.expected == pytest.approx(2 / 3)
    assert audit.nearer == pytest.approx(2 / 3, abs=0.08)


def test_large_pictures_are_compared_averaged_down(digits):
    """The neighbours are those of the small pictures where every pixel is four by four of them."""
    large = digits[:1500].repeat(8, 1).repeat(8, 2)
    small, big = Pool(digits[:900], digits[900:1200]), Pool(large[:900], large[900:1200])
    a, b = small.audit(digits[1200:1500]), big.audit(large[1200:1500])
    np.testing.assert_array_equal(a.index, b.index)
    np.testing.assert_allclose(a.closeness, b.closeness, atol=1e-5)


def test_too_few_training_items_are_refused(digits):
    with pytest.raises(DataError, match=f"more than {NUM}"):
        Pool(digits[:NUM], digits[:0]).audit(digits[100:110])

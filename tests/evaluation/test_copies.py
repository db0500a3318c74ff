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
    for k in range(60):
        order = rng.permutation(len(digits))
        pool = Pool(digits[order[:train]], digits[order[train : train + held_out]], seed=k)
        found.append(pool.audit(digits[order[train + held_out :][:200]]).p)
    assert kstest(found, "uniform").pvalue > 0.01


def test_hardly_anything_is_named_where_nothing_is_copied(digits):
    rng, named = np.random.default_rng(2), 0
    for _ in range(8):
        order = rng.permutation(len(digits))
        audit = Pool(digits[order[:1000]], digits[order[1000:1400]]).audit(digits[order[1400:]])
        named += len(audit.named)
    assert named <= 2  # of 3,176 items


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
    assert [times for _, times in pool.repeated] == [100] * 20
    assert {train[row].tobytes() for row, _ in pool.repeated} == {record.tobytes() for record in records}


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


# items that break an audit where it is careless


def test_floats_and_long_integers_are_audited_as_bytes_are(digits):
    """The same values in other types, and in other units: the same neighbours, closeness, p and names."""
    train, held_out, made = digits[:900], digits[900:1300], np.concatenate([digits[:12], digits[1300:]])
    expected = Pool(train, held_out).audit(made)
    for other in (
        lambda x: x.astype(np.uint16) * 257,
        lambda x: x.astype(np.float32) / np.float32(255),
        lambda x: x.astype(np.float64) * 1e20,  # squares are beyond float32
        lambda x: x.astype(np.float64) * 1e-25,  # squares are nothing in float32
        lambda x: x.reshape(len(x), -1).astype(np.float32) + 100,
    ):
        found = Pool(other(train), other(held_out)).audit(other(made))
        np.testing.assert_allclose(found.closeness, expected.closeness, atol=1e-4)
        np.testing.assert_array_equal(np.sort(found.named), np.sort(expected.named))
        assert found.p == pytest.approx(expected.p, abs=0.02)


def test_held_out_items_that_repeat_another_count_once(digits):
    """Five times the same 80 are no more evidence than 80: an innocent model was said to copy."""
    held_out, made = digits[1000:1080], digits[1080:]
    once, often = (Pool(digits[:1000], held_out.repeat(k, 0)).audit(made) for k in (1, 5))
    assert often.p == once.p
    assert often.held_out == 80
    assert often.expected == 1000 / 1080
    np.testing.assert_array_equal(often.p_each, once.p_each)


def test_held_out_items_that_are_training_items_do_not_hide_copies(digits):
    """Their closeness is 1: counted in, nothing but the very items would ever be nearer than they are."""
    rng = np.random.default_rng(5)
    train, fresh, new = digits[:1000], digits[1000:1300], digits[1300:]
    copies = np.clip(train[500:520] + rng.integers(-3, 4, train[500:520].shape), 0, 255).astype(np.uint8)
    made = np.concatenate([copies, new])
    clean, leaked = (Pool(train, held).audit(made) for held in (fresh, np.concatenate([train[:30], fresh])))
    assert set(range(20)) <= set(leaked.named.tolist())
    assert (leaked.p, leaked.held_out) == (clean.p, 300)
    assert np.isnan(Pool(train, train[:100]).audit(made).p)  # nothing was held out


def test_one_held_out_item_names_no_more_than_none_does(digits):
    """One new item far from all says nothing of what one in a hundred would be."""
    train, made = digits[:1000], digits[1400:]
    none, *ones = (
        Pool(train, digits[rows]).audit(made) for rows in (slice(0), *(slice(k, k + 1) for k in range(1000, 1020)))
    )
    for one in ones:
        assert set(one.named.tolist()) <= set(none.named.tolist())
        assert one.p > 1e-3


@pytest.mark.parametrize("count", [1, 3, 15])
def test_few_generated_items_are_audited(digits, count):
    pool = Pool(digits[:1000], digits[1000:1400])
    np.testing.assert_array_equal(pool.audit(digits[:count]).named, np.arange(count))
    assert len(pool.audit(digits[1400 : 1400 + count]).named) == 0


def test_one_new_item_made_again_and_again_is_no_memorisation(digits):
    """A hundred times the same item has the weight of one label: a p of a half or so, whichever side it lies on."""
    pool = Pool(digits[:900], digits[900:1300])
    assert all(pool.audit(digits[[k] * 100]).p > 0.01 for k in range(1300, 1320))
    copied = pool.audit(digits[[5] * 100])
    assert copied.sources == [(5, 100)]


@pytest.mark.parametrize(
    ("train", "held_out", "made", "message"),
    [
        (np.zeros((40, 8, 8, 1), np.uint8), slice(0, 5), slice(0, 5), "more than 16 different items, not 1"),
        (slice(0, 40), slice(40, 50), np.zeros((0, 8, 8, 1), np.uint8), "no generated items"),
        (slice(0, 40), slice(40, 50), np.zeros((3, 8, 4, 1), np.uint8), "generated items are uint8"),
        (slice(0, 40), slice(40, 50), np.zeros((3, 8, 8, 1), np.float32), "generated items are float32"),
        (slice(0, 40), np.zeros((3, 8, 8, 3), np.uint8), slice(0, 5), "held-out items are uint8"),
    ],
    ids=["all-equal", "none", "shape", "type", "held-out"],
)
def test_what_cannot_be_audited_is_refused(digits, train, held_out, made, message):
    train, held_out, made = (x if isinstance(x, np.ndarray) else digits[x] for x in (train, held_out, made))
    with pytest.raises(DataError, match=message):
        Pool(train, held_out).audit(made)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_no_numbers_are_refused(digits, value):
    """A closeness of nan was taken for 1: a copy."""
    items = digits.astype(np.float64)
    made = items[1000:1010].copy()
    made[3, 2, 2] = value
    with pytest.raises(DataError, match="not finite, or too large"):
        Pool(items[:500], items[500:600]).audit(made)

"""The verdict on curves whose truth is known: made from a law, with the noise that real runs were measured to have.

From look to look an item's loss moves by 2 to 5 % of its own, and all of them together by less than 0.5 %; items differ by a
factor. Measured of averaged weights on scikit-learn's digits and Fashion-MNIST.
"""

import json
import math

import numpy as np
import pytest
from scipy import stats

from langevin.evaluation.verdict import Change, Look, change, judge, looks_of

STEPS = np.array([64, 90, 127, 179, 253, 358, 507, 718, 1017, 1440, 1940, 2440, 2940, 3440, 3940, 4440, 4940, 6000])


def run(
    seed,
    *,
    held_out=32,
    training=32,
    power=0.3,
    own=0.04,
    common=0.004,
    rise=0.0,
    spread=0.4,
    blow=0.0,
    since=1017,
    till=99,
):
    """Looks of a run whose loss falls as step^-power; after `since` held-out items rise by `rise` (in logs, +- `spread` from item
    to item) and training items fall by as much, and both rise by `blow`. `till`: looks after that many add nothing."""
    rng = np.random.default_rng(seed)
    steps = STEPS[:till]
    after = np.clip(np.log(steps / since) / np.log(STEPS[-1] / since), 0, None)[:, None]
    course = -power * np.log(steps)[:, None] + common * rng.standard_normal((len(steps), 1)) + blow * after

    def items(count, slope):
        walk = np.cumsum(own * rng.standard_normal((len(steps), count)), 0)
        return np.exp(course + walk + 0.3 * rng.standard_normal(count) + after * slope)

    unseen = items(held_out, rise * (1 + spread * rng.standard_normal(held_out)))
    seen = items(training, -rise)
    return [Look(int(s), tuple(u), tuple(v)) for s, u, v in zip(steps, unseen, seen, strict=True)]


def states(looks):
    return [judge(looks[: k + 1]).state for k in range(len(looks))]


def test_a_run_that_learns_or_has_learned_all_is_not_alarmed():
    """In fewer than 1 % of 1000 runs, at any of their looks."""
    alarms = 0
    for seed in range(1000):
        held_out, training = ((6, 58), (32, 32), (128, 128))[seed % 3]
        said = states(run(seed, held_out=held_out, training=training, power=(0.0, 0.1, 0.4, 1.0)[seed % 4]))
        assert said[:2] == ["early", "early"]
        alarms += bool({"overfitting", "diverging"} & set(said))
    assert alarms < 10


@pytest.mark.parametrize(
    ("held_out", "rise", "spread"), [(6, 1.0, 0.25), (16, 0.4, 0.4), (32, 0.2, 0.4), (128, 0.1, 0.4)]
)
def test_overfitting_is_found(held_out, rise, spread):
    """In more than 95 % of runs, where held-out items end `rise` (in logs) above what they would: by a factor of e for six
    items, 10 % for many. The step named is no later than where it begins, and no run is ended before it has lost a tenth."""
    found = near = 0
    for seed in range(200):
        looks = run(seed, held_out=held_out, training=max(held_out, 32), power=0.02, rise=rise, spread=spread)
        verdict = judge(looks)
        found += verdict.state == "overfitting"
        near += verdict.since <= 1940  # it begins at 1017
        if verdict.stop:
            best = next(look for look in looks if look.step == verdict.best)
            assert change(best.held_out, looks[-1].held_out).value > 0.095
    assert found > 190
    assert near > 190


def test_a_run_by_which_both_sides_lose_diverges_and_is_found():
    verdicts = [judge(run(seed, power=0.02, blow=0.2)) for seed in range(200)]
    assert sum(v.state == "diverging" for v in verdicts) > 190
    assert not any(v.stop for v in verdicts)
    assert "optimizer.lr" in verdicts[0].advice
    broken = run(0)[:6]
    broken[-1] = Look(broken[-1].step, (math.nan,) * 32, (math.inf,) * 32)
    assert judge(broken).state == "diverging"


def test_a_run_is_stopped_only_while_it_overfits():
    """With patience: the third look that says so, and not where training items lose as well."""
    looks = run(5, held_out=64, training=64, power=0.02, rise=0.5)
    said, stop = states(looks), [judge(looks[: k + 1]).stop for k in range(len(looks))]
    assert True in stop
    assert not any(s and word != "overfitting" for s, word in zip(stop, said, strict=True))
    assert stop.index(True) >= said.index("overfitting") + 1
    assert not any(judge(run(seed)[:k]).stop for seed in range(20) for k in range(1, 18))


def test_a_plateau_is_named_with_its_step():
    flat = [Look(int(s), *(tuple(np.full(9, max(2 - math.log10(s / 64), 1.2))),) * 2) for s in STEPS]
    verdict = judge(flat)
    assert verdict.state == "plateau"
    assert verdict.since == 507  # 2 - log10(s / 64) reaches 1.2 at s = 404
    assert verdict.gain.value == pytest.approx(0, abs=1e-12)
    assert "stop here" in verdict.advice
    assert states(flat)[7] == "learning"  # 718 is not yet half as much again as 507


@pytest.mark.parametrize("power", [0.1, 0.5])
def test_what_twice_the_steps_bring_follows_from_the_last_doubling(power):
    """l = step^-power falls by power log 2 in logs, between looks too, where log l is linear in log step."""
    looks = [Look(int(s), *(tuple(s**-power * np.array([1.0, 2.0, 5.0])),) * 2) for s in STEPS]
    verdict = judge(looks)
    assert verdict.state == "learning"
    assert verdict.gain.value == pytest.approx(power * math.log(2))
    assert "a longer run pays" in verdict.advice


def test_a_change_is_the_paired_test_of_logarithms():
    rng = np.random.default_rng(0)
    for n in (2, 6, 40):
        a, b = rng.lognormal(size=(2, n))
        found, known = change(a, b), stats.ttest_rel(np.log(b), np.log(a), alternative="greater")
        assert found.value / found.error == pytest.approx(known.statistic)
        for alpha in (known.pvalue * 1.01, known.pvalue * 0.99):
            assert found.beyond(-math.inf, alpha) == (alpha > known.pvalue)
    assert not change([1.0], [9.0]).beyond(0.0)  # one item shows nothing
    assert (found - -found).error == pytest.approx(math.sqrt(2) * found.error)
    assert str(Change(math.log(1.25), 0.1, 5)) == "+25.0 ± 12.5 %"


def test_the_unit_of_the_loss_and_the_order_of_items_have_no_part():
    looks = run(3, rise=0.3)
    order = np.random.default_rng(1).permutation(32)
    other = [Look(k.step, tuple(7 * np.array(k.held_out)[order]), tuple(7 * np.array(k.training))) for k in looks]
    a, b = judge(looks), judge(other)
    assert (a.state, a.since, a.best, a.stop) == (b.state, b.since, b.best, b.stop)
    assert a.line == b.line


def test_without_held_out_items_nothing_is_said_of_overfitting():
    looks = [Look(k.step, (), k.held_out) for k in run(3, rise=1.0)]
    assert judge(looks).state == "diverging"  # training items that rise are no overfitting
    assert judge(looks).items == 0
    assert "held-out" not in judge(looks).line
    assert states([Look(k.step, (), k.training) for k in run(3, rise=1.0)])[-1] == "learning"


def test_a_private_run_is_judged_by_held_out_items_alone_and_told_what_more_steps_cost():
    def blind(looks):
        return [Look(k.step, k.held_out, ()) for k in looks]

    learning, short, risen = (judge(blind(x)) for x in (run(0), run(0)[:2], run(3, power=0.02, rise=0.5)))
    assert (learning.state, learning.gain.value) == ("learning", judge(run(0)).gain.value)
    assert risen.state == "diverging" and not risen.stop
    assert "fewer steps" in risen.advice
    for verdict in (learning, short):
        assert "cost more epsilon" in verdict.advice
        assert "a longer run pays" not in verdict.advice and "give it more steps" not in verdict.advice
    for verdict in (learning, short, risen):
        assert "training" not in verdict.line and "nan" not in verdict.line
        json.dumps(verdict.facts(), allow_nan=False)
    alarms = sum("diverging" in states(blind(run(s, held_out=(6, 32, 128)[s % 3], power=0.02))) for s in range(300))
    assert alarms < 3


def test_the_verdict_is_the_same_from_rows():
    looks = run(4, power=0.02, rise=0.5)
    rows = [{"step": k.step, "held_out_items": list(k.held_out), "training_items": list(k.training)} for k in looks]
    rows = [{"step": 1, "loss": 3.0}, *rows[3:], *rows[:4]]  # steps between them; one look twice; any order
    again = judge(looks_of(json.loads(json.dumps(rows))))
    assert again == judge(looks)
    facts = json.loads(json.dumps(again.facts(), allow_nan=False))
    assert facts["state"] == "overfitting"
    assert facts["line"].startswith("overfitting since step")

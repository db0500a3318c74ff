"""What is said of figures whose meaning is known, and when a difference of two sets is called certain."""

from dataclasses import replace

import numpy as np
import pytest

from langevin.evaluation.copies import Audit
from langevin.evaluation.figures import Figure, Yardstick
from langevin.evaluation.judgement import compare, judge


def figure(name, value, floor, error=0.01, higher=False, count=2000):
    return Figure(name, value, floor, count, "x", error, higher, value - 2 * error, value + 2 * error, error)


LIKE = [
    figure("frechet[pca]", 1.0, 1.0),
    figure("kernel[pca]", 0.0, 0.0),
    figure("precision[pca]", 0.9, 0.9, higher=True),
    figure("recall[pca]", 0.9, 0.9, higher=True),
]


def but(**changes):
    return [replace(f, **changes.get(f.name.split("[")[0], {})) for f in LIKE]


def keys(said):
    return [s.key for s in said]


def audit(p=0.4, named=0, n=1000):
    rows = np.arange(n)
    return Audit(p, 0.8, 0.8, rows, np.ones(n), np.zeros(n), np.ones(n), rows[:named], "pixels", 100)


def test_what_scores_its_floors_is_like_real_items():
    assert keys(judge(LIKE, [])) == ["say.like"]


def test_samples_that_lie_elsewhere_are_unfaithful_and_few_kinds_are_narrow():
    far = {"value": 9.0}
    assert "say.unfaithful" in keys(judge(but(precision={"value": 0.4}, frechet=far), []))
    assert "say.narrow" in keys(judge(but(recall={"value": 0.4}, frechet=far), []))
    near = judge(but(precision={"value": 0.85}, frechet=far), [])
    assert [(s.level, s.key) for s in near] == [("good", "say.near"), ("fair", "say.far")]


def test_copies_are_told_and_one_in_a_thousand_is_not_called_copying():
    assert keys(judge([], [audit(p=1e-4, named=30), audit()])) == ["say.copies"]
    assert keys(judge([], [audit(named=1)])) == ["say.new"]
    assert keys(judge([], [audit(p=1e-4)])) == ["say.leaning"]
    assert keys(judge([], [audit(p=float("nan"))])) == ["say.new.alone"]


def test_warnings_of_the_data():
    few = [replace(f, count=100) for f in LIKE]
    said = judge(few, [], halves=True, leaks=3)
    assert keys(said) == ["say.like", "say.few", "say.halves", "say.leaks"]
    assert {s.level for s in said} == {"fair"}


def test_bad_news_come_first():
    assert keys(judge(LIKE, [audit(p=1e-4, named=30)])) == ["say.copies", "say.like"]


def test_differences_are_certain_only_beyond_their_errors_and_after_holm():
    a = [figure("frechet[pca]", 1.0, 0.5, 0.1), figure("precision[pca]", 0.9, 0.9, 0.01, True)]
    b = [figure("frechet[pca]", 2.0, 0.5, 0.1), figure("precision[pca]", 0.91, 0.9, 0.01, True)]
    rows = compare(a, b)
    assert [r.better for r in rows] == ["a", ""]
    assert rows[0].p == pytest.approx(1.5e-12, rel=0.2)  # 7.07 standard errors, two-sided
    assert [r.better for r in compare(b, a)] == ["b", ""]
    just = [
        figure("kernel[pca]", 1.0 + 0.1 * 2**0.5 * 2.0, 0, 0.1),
        *a[1:],
    ]  # p = .0455: enough alone, not as one of two
    assert [r.better for r in compare([figure("kernel[pca]", 1.0, 0, 0.1), *a[1:]], just)] == ["", ""]
    assert [r.better for r in compare([figure("kernel[pca]", 1.0, 0, 0.1)], just[:1])] == ["a"]


def test_two_sets_of_one_law_are_hardly_ever_told_apart():
    """Over all figures together at most one pair of sets in twenty, by Holm; eight pairs here."""
    rng = np.random.default_rng(0)
    wrong = 0
    for k in range(8):
        yardstick = Yardstick.of(rng.normal(size=(600, 5)), rng.normal(size=(300, 5)), 300, k)
        a, b = (yardstick.measure(rng.normal(size=(300, 5))) for _ in range(2))
        wrong += any(row.better for row in compare(a, b) if row.name != "copies")
    assert wrong <= 2

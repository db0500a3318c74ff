"""The mean score of pairs, with a reader whose scores are known."""

import numpy as np
import pytest

from langevin.evaluation.texts import text_agreement


class Counts:
    """Scores a picture by its mean where its text says "bright", by what is missing to 100 where it says "dark"."""

    def clip_score(self, items, texts):
        means = items.reshape(len(items), -1).mean(1)
        return np.where([t == "bright" for t in texts], means, 100 - means)


def test_it_is_the_mean_over_pairs_with_its_error_and_the_real_pairs_beside():
    rng = np.random.default_rng(0)
    made, real = rng.uniform(0, 100, (50, 2, 2, 1)), rng.uniform(0, 100, (80, 2, 2, 1))
    words, said = rng.choice(["bright", "dark"], 50).tolist(), rng.choice(["bright", "dark"], 80).tolist()
    found = text_agreement(Counts(), real, said, made, words)
    expected = Counts().clip_score(made, words)
    assert found.value == pytest.approx(expected.mean())
    assert found.error == pytest.approx(expected.std(ddof=1) / 50**0.5)
    assert found.floor == pytest.approx(Counts().clip_score(real[:50], said[:50]).mean())
    assert found.higher_is_better


def test_pictures_without_a_text_are_left_out():
    made = np.arange(6.0).reshape(6, 1, 1, 1)
    found = text_agreement(Counts(), made, ["bright"] * 6, made, ["bright", "", "bright", "", "", "bright"])
    assert found.value == pytest.approx((0 + 2 + 5) / 3)
    assert found.count == 3

"""Words that depend on a number."""

import pytest

from langevin.words import counted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((0, "item"), "0 items"),
        ((1, "item"), "1 item"),
        ((2, "item"), "2 items"),
        ((1234, "class", "classes"), "1,234 classes"),
        ((1, "pair looks", "pairs look"), "1 pair looks"),
    ],
)
def test_one_is_not_many(given, said):
    assert counted(*given) == said

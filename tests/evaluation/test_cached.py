"""What is kept is given again, for the same items alone; damage and full disks cost time only."""

import numpy as np
import pytest

from langevin.evaluation import cached
from langevin.evaluation.cached import Kept, key_of
from langevin.evaluation.features import Gradients
from langevin.evaluation.figures import Yardstick
from langevin.evaluation.learned import learn


def numbers(start):
    return {"x": np.arange(start, start + 5.0), "n": np.array([[start]], np.int64)}


def test_made_once_and_the_same_again(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return numbers(3)

    kept = Kept(tmp_path / "figures")
    for _ in range(3):
        found = kept.get(key_of("a", 1), make)
        for name, array in numbers(3).items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    assert len(calls) == 1
    assert kept.get(key_of("a", 2), lambda: numbers(9))["x"][0] == 9


def test_a_damaged_file_is_made_again(tmp_path):
    kept, key = Kept(tmp_path), key_of("b")
    kept.get(key, lambda: numbers(1))
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:20])
    assert kept.get(key, lambda: numbers(2))["x"][0] == 2
    assert kept.get(key, lambda: numbers(5))["x"][0] == 2


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert Kept(tmp_path / "file").get(key_of("c"), lambda: numbers(4))["x"][0] == 4


def test_the_least_recently_used_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cached, "MOST_BYTES", 1000)
    kept = Kept(tmp_path)
    for k in range(12):
        kept.get(key_of(k), lambda k=k: numbers(k))
    left = list(tmp_path.glob("*.safetensors"))
    assert sum(f.stat().st_size for f in left) <= 1000
    assert tmp_path / f"{key_of(11)}.safetensors" in left
    assert not list(tmp_path.glob("*.new"))


@pytest.fixture
def items():
    return np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)


def test_figures_are_the_same_and_nothing_is_described_twice(items, tmp_path, monkeypatch):
    def measure(train):
        yardstick = Yardstick.of(train, items[120:160], 40, kept=Kept(tmp_path))
        features = yardstick.features
        asked = []
        monkeypatch.setattr(Gradients, "__call__", lambda self, x: asked.append(len(x)) or describe(self, x))
        found = yardstick.measure(items[160:])
        return found, asked, features

    describe = Gradients.__call__
    first, asked, _ = measure(items[:120])
    again, later, _ = measure(items[:120])
    assert first == again
    assert 120 in asked
    assert 120 not in later
    _, other, _ = measure(items[1:121])
    assert 120 in other


def test_a_network_that_was_learned_is_not_learned_again(items, tmp_path):
    steps = []

    def learned(labels):
        return learn(items, labels, 2, budget=640, heed=lambda: steps.append(1), kept=Kept(tmp_path))

    labels = np.arange(200) % 2
    one, count = learned(labels), len(steps)
    same = learned(labels)
    assert len(steps) == count > 0
    assert one.digest == same.digest
    np.testing.assert_array_equal(one(items[:9]), same(items[:9]))
    assert learned(1 - labels).digest != one.digest
    assert len(steps) == 2 * count

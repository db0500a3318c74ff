"""What is chosen where the user says nothing."""

import time

import numpy as np
import pytest

import langevin
from langevin import data
from langevin.config import parse
from langevin.errors import UsageError
from langevin.recipes import plan
from langevin.recipes.console import Console
from langevin.recipes.reading import dataset_of
from langevin.recipes.train import train
from tests.models import digits_like, small_model


@pytest.fixture
def labelled(tmp_path):
    items, labels = digits_like(200)
    np.savez(tmp_path / "set.npz", images=items, labels=labels)
    return tmp_path / "set.npz"


@pytest.mark.parametrize(
    ("settings", "guidance", "interval"),
    [
        ({}, 2.0, (0.1, 3.0)),
        ({"data": {"size": 64}}, 2.0, (0.2, 6.0)),
        ({"dropout": 0}, 1.0, None),  # a model that always had labels knows nothing to be led away from
        ({"data": {"labels": False}}, 1.0, None),
        ({"sampling": {"guidance": 2}}, 2.0, None),
        ({"sampling": {"guidance_interval": [0.3, 1]}}, 2.0, (0.3, 1.0)),
        ({"sampling": {"guidance": 3, "guidance_interval": [0.2, 1]}}, 3.0, (0.2, 1.0)),
    ],
)
def test_samples_of_classes_are_guided_where_the_model_can_be(labelled, settings, guidance, interval):
    config = parse({"steps": 1, **settings, "data": {"path": str(labelled), **settings.get("data", {})}})
    chosen = plan.resolve(config, dataset_of(config, lambda *_: None)).sampling
    assert (chosen.guidance, chosen.guidance_interval) == (guidance, interval)


def test_a_model_s_own_guidance_is_what_it_says(tmp_path):
    model = small_model()
    plain = model.sample(3, label="cat")
    asked = model.sample(3, label="cat", guidance=4.0, guidance_interval=(0.2, 2.0))
    model.sampling |= {"guidance": 4.0, "guidance_interval": [0.2, 2.0]}
    assert not np.array_equal(plain, asked)
    again = langevin.load(model.save(tmp_path / "model"))
    assert np.array_equal(again.sample(3, label="cat"), asked)
    assert np.array_equal(again.sample(3, label="cat", guidance=1), plain)
    everywhere = again.sample(3, label="cat", guidance=4.0)
    assert not np.array_equal(everywhere, asked)
    assert np.array_equal(again.sample(3, label="cat", guidance_interval=(0, 1e9)), everywhere)


def test_labels_can_be_left_out(labelled, in_tmp):
    whole = data.open(labelled)
    config = parse({"steps": 2, "data": {"path": str(labelled), "labels": False}})
    without = dataset_of(config, lambda *_: None)
    assert np.array_equal(whole.items, without.items)
    assert (whole.classes, without.classes, without.fingerprint) == (("0", "1"), (), whole.fingerprint)
    run = train(labelled, steps=2, settings={"data.labels": "false"}, console=Console("quiet"))
    assert run.model.classes == ()
    assert run.labels is None


def test_a_budget_counts_from_the_beginning_of_the_command(labelled, in_tmp):
    with pytest.raises(UsageError, match=r"6[0-9][0-9] s went into reading"):
        train(labelled, minutes=10, started=time.perf_counter() - 600, console=Console("quiet"))

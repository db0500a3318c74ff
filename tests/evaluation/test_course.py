"""The way of a sample: it begins at its noise, ends at the sample, and the network sees ever more."""

import numpy as np
import pytest
import torch

from langevin.evaluation.course import course
from langevin.rng import keyed
from tests.models import small_model


@pytest.mark.parametrize("solver", [None, "ancestral"])
def test_it_ends_at_the_sample_and_begins_at_the_noise(solver):
    model = small_model()
    model.sampling["solver"] = solver
    way = course(model, [3, 4], ["cat", "dog"], steps=6)
    assert way.steps == 6
    expected = model.sample(seeds=[3, 4], label=["cat", "dog"], steps=6)
    np.testing.assert_array_equal(way.held[-1], expected)
    np.testing.assert_array_equal(way.foreseen[-1], expected)
    z = model.denoiser.process.prior((2, *model.shape), keyed([3, 4])(0), dtype=torch.float32)
    schedule, one = model.denoiser.process.schedule, torch.ones((), dtype=torch.float64)
    scale = float((schedule.alpha(one) ** 2 + schedule.sigma(one) ** 2).sqrt())
    np.testing.assert_array_equal(way.held[0], model.codec.decode(z / scale).numpy())


def test_steps_to_show_hold_both_ends():
    way = course(small_model(), [1], steps=10)
    assert way.some(4) == [0, 3, 7, 10]
    assert way.some(50) == list(range(11))

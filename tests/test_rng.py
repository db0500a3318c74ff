"""Every sample has its own numbers, whatever stands beside it."""

import numpy as np
import pytest
import torch
from scipy import stats

from langevin.rng import SampleNoise, generator, keyed, uniforms


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_sample_does_not_depend_on_its_batch(dtype: torch.dtype) -> None:
    like = torch.empty(64, 3, 5, dtype=dtype)
    whole = keyed(range(64))(7)(like)
    assert whole.dtype == dtype
    for k in (0, 13, 63):
        assert torch.equal(keyed([k])(7)(like[:1])[0], whole[k])
    order = [5, 40, 2]
    assert torch.equal(keyed(order)(7)(like[:3]), whole[order])


def test_draws_follow_one_another_and_start_over() -> None:
    like, noise = torch.empty(2, 6, dtype=torch.float64), keyed([3, 4])(1)
    first, second = noise(like), noise(like)
    rng = np.random.Generator(np.random.Philox(counter=[0, 0, 0, 0], key=[3, 1]))
    assert np.array_equal(np.concatenate([first[0], second[0]]), rng.standard_normal(12))
    assert torch.equal(keyed([3, 4])(1)(like), first)


def test_each_row_goes_on_where_its_own_generator_stands() -> None:
    keys = [(7, 1, 2, 3), (2**64 - 1, 2**63, 0, 5), (0,), (-1, 4)]
    noise, rngs = SampleNoise(keys), [generator(*key) for key in keys]
    for width, kind in ((5, np.float32), (7, np.float64), (0, np.float64), (3, np.float32)):
        drawn = noise(torch.empty(4, width, dtype=torch.from_numpy(np.empty(0, kind)).dtype)).numpy()
        assert np.array_equal(drawn, [rng.standard_normal(width, dtype=kind) for rng in rngs])


def test_every_part_of_the_key_counts() -> None:
    keys = [(1,), (2,), (1, 1), (1, 2), (2, 1), (1, 0, 1), (1, 1, 1), (1, 0, 0, 1), (1, 0, 1, 1)]
    draws = np.stack([generator(*key).standard_normal(4000) for key in keys])
    correlation = np.corrcoef(draws) - np.eye(len(keys))
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_neighbouring_seeds_and_steps_are_standard_normal_and_independent() -> None:
    x = torch.stack([keyed(range(200))(step)(torch.empty(200, 40)) for step in range(5)])
    assert stats.kstest(x.flatten().numpy(), "norm").pvalue > 1e-3
    sums = x.sum((0, 2)).numpy() / np.sqrt(200)  # shared numbers would widen the law of sums
    assert stats.kstest(sums, "norm").pvalue > 1e-3


def test_a_wrong_number_of_seeds_is_said() -> None:
    with pytest.raises(ValueError, match="2 seeds for a batch of 3"):
        SampleNoise([(0,), (1,)])(torch.empty(3, 1))


@pytest.mark.parametrize("count", [1, 7, 64, 1000])
def test_uniforms_put_one_number_in_each_stratum(count: int) -> None:
    u = uniforms(count, 5, 2)
    assert u.dtype == torch.float64 and bool(((u > 0) & (u < 1)).all())
    assert sorted((u * count).floor().int().tolist()) == list(range(count))


def test_each_uniform_alone_is_uniform_and_so_is_its_order() -> None:
    u = torch.stack([uniforms(8, 3, step) for step in range(2000)])
    for i in (0, 7):
        assert stats.kstest(u[:, i].numpy(), "uniform").pvalue > 1e-3
    ranks = torch.bincount((u[:, 3] * 8).long(), minlength=8)
    assert stats.chisquare(ranks.numpy()).pvalue > 1e-3

"""A tensor is finite where all of its numbers are, whatever their sum does."""

import pytest
import torch

from langevin.errors import DivergedError
from langevin.finite import is_finite, refuse_broken


@pytest.mark.parametrize(
    ("numbers", "dtype", "sound"),
    [
        ([1.0, -2.0], torch.float32, True),
        ([], torch.float32, True),
        ([60000.0, 60000.0], torch.float16, True),  # the sum is infinite
        ([3e38, 3e38, -3e38], torch.float32, True),
        ([1.0, float("inf")], torch.float32, False),
        ([float("inf"), -float("inf")], torch.float32, False),
        ([0.0, float("nan")], torch.float32, False),
    ],
)
def test_sums_that_overflow_are_looked_at_again(numbers, dtype, sound):
    value = torch.tensor(numbers, dtype=dtype)
    assert is_finite(value) is sound is bool(value.isfinite().all())
    if sound:
        refuse_broken({"w": value}, where="here")
    else:
        with pytest.raises(DivergedError, match="w"):
            refuse_broken({"w": value}, where="here")

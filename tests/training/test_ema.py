"""Power-function averages."""

import numpy as np
import pytest
import torch

from langevin.training import ema


def test_gamma_of_known_widths():
    assert [ema.gamma_of(s) for s in (0.05, 0.10, 0.15)] == pytest.approx([16.972, 6.937, 3.558], abs=5e-4)


def test_the_average_is_the_power_function_of_time():
    """average_T = sum of w_t ((t/T)^(g+1) - ((t-1)/T)^(g+1)), the telescoped form of the recursion."""
    rng, sigma_rel, T = np.random.default_rng(0), 0.1, 60
    weights = torch.from_numpy(rng.standard_normal((T, 5)))
    average = [torch.full((5,), 7.0, dtype=torch.float64)]
    for t in range(1, T + 1):
        ema.update(average, [weights[t - 1]], t, sigma_rel)
    share = (np.arange(T + 1) / T) ** (ema.gamma_of(sigma_rel) + 1)
    want = (weights * torch.from_numpy(np.diff(share))[:, None]).sum(0)
    torch.testing.assert_close(average[0], want, rtol=1e-10, atol=1e-12)

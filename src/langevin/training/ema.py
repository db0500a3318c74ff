"""Power-function averages of the weights: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion
Models", 2024, section 3.

    average_t = beta_t average_{t-1} + (1 - beta_t) weights_t,   beta_t = (1 - 1/t)^(gamma + 1)

An average whose width is a share sigma_rel of the run so far, whatever its length; at t = 1 it is the weights themselves.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def gamma_of(sigma_rel: float) -> float:
    """gamma of a relative width in (0, 0.28): the positive root of sigma_rel^2 (g+2)^2 (g+3) = g + 1 (eq. 6)."""
    t = sigma_rel**-2
    roots = np.roots([1, 7, 16 - t, 12 - t])
    return float(roots.real.max())


def beta(step: int, sigma_rel: float) -> float:
    """What the average keeps at step 1, 2, ..."""
    return float((1 - 1 / step) ** (gamma_of(sigma_rel) + 1))


@torch.no_grad()
def update(average: Iterable[Tensor], weights: Iterable[Tensor], step: int, sigma_rel: float) -> None:
    """Move the average in place, at step 1, 2, ..."""
    torch._foreach_lerp_(list(average), [w.detach() for w in weights], 1 - beta(step, sigma_rel))

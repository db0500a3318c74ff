"""Power-function averages of the weights: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion
Models", 2024, section 3.

    average_t = beta average_s + (1 - beta) weights_t,   beta = (s / t)^(gamma + 1)

from an earlier edge s to the edge t. An average whose width is a share sigma_rel of the run so far, whatever its length; at
t = 1 it is the weights themselves. With weights_t held over (s, t] it is their integral against the profile

    p(tau) = (gamma + 1) / t^(gamma + 1) tau^gamma,   0 < tau <= t

exactly, so that stored averages give any other one as well as their profiles give its profile (algorithm 3).

Every step is an edge at first. A late step is a small part of any width, and to read all weights at each costs more than it
tells: from step 1,000 on every second one is an edge, from 2,000 on every fourth, from 4,000 on every eighth.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@cache
def gamma_of(sigma_rel: float) -> float:
    """gamma of a relative width in (0, 0.28): the positive root of sigma_rel^2 (g+2)^2 (g+3) = g + 1 (eq. 6)."""
    t = sigma_rel**-2
    roots = np.roots([1, 7, 16 - t, 12 - t])
    return float(roots.real.max())


def edge(step: int) -> int:
    """The last edge at or before a step."""
    return step - step % min(1 << max(step // 500, 1).bit_length() - 1, 8)


def beta(step: int, sigma_rel: float) -> float:
    """What the average keeps at an edge."""
    return float((edge(step - 1) / step) ** (gamma_of(sigma_rel) + 1))


@torch.no_grad()
def update(average: Iterable[Tensor], weights: Iterable[Tensor], step: int, sigma_rel: float) -> None:
    """Move the average in place at step 1, 2, ..., where that is an edge."""
    if edge(step) == step:
        torch._foreach_lerp_(list(average), [w.detach() for w in weights], 1 - beta(step, sigma_rel))


@dataclass(frozen=True)
class Profile:
    """What an average gives each moment of the run.

    Attributes:
        step: the last moment, over 0.
        sigma_rel: the width, a share of `step` in (0, 0.28).
    """

    step: float
    sigma_rel: float

    def inner(self, other: "Profile") -> float:
        """The integral of the product of two profiles over time."""
        early, late = sorted((self, other), key=lambda p: p.step)
        g, h = gamma_of(early.sigma_rel), gamma_of(late.sigma_rel)
        return (g + 1) * (h + 1) / (g + h + 1) * (early.step / late.step) ** h / late.step


def mixture(wanted: Profile, stored: Sequence[Profile]) -> tuple[NDArray[np.float64], float]:
    """The sum of stored profiles that comes nearest to a wanted one, in the mean square over time.

    The coefficients sum to 1, so that weights that did not move are given back as they are; without that, few snapshots
    miss several times as far.

    Returns:
        (n,) the coefficients, and the distance as a share of the wanted profile's norm.
    """
    n, unit = len(stored), wanted.inner(wanted)
    among = np.array([[a.inner(b) for b in stored] for a in stored]) / unit
    along = np.array([wanted.inner(a) for a in stored]) / unit
    system = np.ones((n + 1, n + 1))
    system[:n, :n], system[n, n] = among, 0
    x = np.linalg.lstsq(system, np.append(along, 1), rcond=1e-15)[0][:n]
    return x, float(np.sqrt(max(x @ among @ x - 2 * x @ along + 1, 0)))

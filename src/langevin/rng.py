"""Randomness is an argument, and every sample has its own.

A draw is a function of (seed of the sample, step, stream) through Philox, a counter-based generator (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011): sample k is the same in a batch of 1 or 64, in any order, in any
process, and a resumed trajectory goes on with the numbers that it would have had.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

Noise = Callable[[Tensor], Tensor]
"""Like `torch.randn_like`: a tensor (B, ...) gives standard normal numbers of its shape, dtype and device."""

_MASK = (1 << 64) - 1


def generator(seed: int, *key: int) -> np.random.Generator:
    """A NumPy generator keyed by a seed and up to three further non-negative integers below 2^64.

    Streams with different keys are independent; seed and first key fill Philox's key, the others its counter.
    """
    first, second, third = (*key, 0, 0, 0)[:3]
    words = [int(k) & _MASK for k in (seed, first, second, third)]
    return np.random.Generator(np.random.Philox(counter=[0, 0, words[3], words[2]], key=[words[0], words[1]]))


@dataclass
class SampleNoise:
    """Noise for a batch whose row i is drawn from the generator with the key keys[i].

    Successive calls give successive draws; a new object with the same keys starts over.
    """

    keys: Sequence[tuple[int, ...]]
    _generators: list[np.random.Generator] = field(init=False, repr=False, default_factory=list)

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normal numbers shaped, typed and placed like `like` (B, ...), B = number of keys."""
        if len(like) != len(self.keys):
            raise ValueError(f"{len(self.keys)} seeds for a batch of {len(like)}")
        if not self._generators:
            self._generators = [generator(*key) for key in self.keys]
        out = np.empty(tuple(like.shape), np.float64 if like.dtype == torch.float64 else np.float32)
        for row, rng in zip(out.reshape(len(out), -1), self._generators, strict=True):
            rng.standard_normal(dtype=row.dtype.type, out=row)
        return torch.from_numpy(out).to(like.device, like.dtype)


def uniform_like(noise: Noise, like: Tensor) -> Tensor:
    """float64 numbers uniform in [0, 1], shaped and placed like `like`: the normal distribution function of the noise."""
    u: Tensor = torch.special.ndtr(noise(torch.empty(like.shape, dtype=torch.float64, device=like.device)))
    return u


def keyed(seeds: Sequence[int]) -> Callable[[int], Noise]:
    """Step index -> the Noise of that step for samples with these seeds; what `trajectory` takes."""
    return lambda step: SampleNoise([(seed, step) for seed in seeds])


def uniforms(count: int, *key: int) -> Tensor:
    """(count,) float64 numbers in (0, 1), low-discrepancy: one in each of `count` equal strata, in random order.

    u_i = frac(u + pi(i) / count) with one uniform u and a permutation pi (Kingma et al., "Variational Diffusion
    Models", 2021, appendix I.1): each alone is uniform, together they cover the interval evenly.
    """
    rng = generator(*key)
    u = (rng.random() + rng.permutation(count) / count) % 1.0
    return torch.from_numpy(np.clip(u, 2.0**-53, 1 - 2.0**-53))

"""Randomness is an argument, and every sample has its own.

A draw is a function of (seed of the sample, step, stream) through Philox, a counter-based generator (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011): sample k is the same in a batch of 1 or 64, in any order, in any
process, and a resumed trajectory goes on with the numbers that it would have had.

Brownian paths go further: trajectories of one seed over different times see the same path. The reverse process with x0 known
adds, from t to s, noise u_s (B(snr_s) - B(snr_t)) to x / alpha, with u = sigma^2 / alpha^2 = 1 / snr and B a Brownian motion
whose clock is snr = e^(2 lam): its variance u_s^2 (1/u_s - 1/u_t) is that of q(x_s | x_t, x0). In lam,

    U(lam) = e^-lam B(e^(2 lam))

is stationary, with unit variance and correlation e^-|lam - lam'|, and so is drawn wherever it is asked for, between any two
values known:  U(m) = (sinh(b - m) U(a) + sinh(m - a) U(b)) / sinh(b - a) + sqrt(2 sinh(m - a) sinh(b - m) / sinh(b - a)) Z.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

Noise = Callable[[Tensor], Tensor]
"""Like `torch.randn_like`: a tensor (B, ...) gives standard normal numbers of its shape, dtype and device."""

_MASK = (1 << 64) - 1
_PATH = 1 << 62  # the stream of Brownian paths; steps are below
_LOW, _HIGH = -10.0, 14.0  # in lam; times beyond are taken for the end
_DEPTH = 13
_CELL = (_HIGH - _LOW) / (1 << _DEPTH)


def generator(seed: int, *key: int) -> np.random.Generator:
    """A NumPy generator keyed by a seed and up to three further non-negative integers below 2^64.

    Streams with different keys are independent; seed and first key fill Philox's key, the others its counter.
    """
    first, second, third, fourth = _words(seed, *key)
    # as arrays: NumPy takes a list with a word above 2^63 through float64, and neighbours become one
    counter, own = np.array([0, 0, fourth, third], np.uint64), np.array([first, second], np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=own))


def _words(*key: int) -> list[int]:
    return [int(k) & _MASK for k in (*key, 0, 0, 0)[:4]]


@dataclass
class SampleNoise:
    """Noise for a batch whose row i is drawn from the generator with the key keys[i].

    Successive calls give successive draws; a new object with the same keys starts over.

    Args:
        made: the first draw, where it was made before.
    """

    keys: Sequence[tuple[int, ...]]
    made: Tensor | None = field(default=None, repr=False)
    _generators: list[np.random.Generator] = field(init=False, repr=False, default_factory=list)
    _first: tuple[int, type] | None = field(init=False, repr=False, default=None)

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normal numbers shaped, typed and placed like `like` (B, ...), B = number of keys."""
        if len(like) != len(self.keys):
            raise ValueError(f"{len(self.keys)} seeds for a batch of {len(like)}")
        kind = np.float64 if like.dtype == torch.float64 else np.float32
        if self._first is None and self.made is not None and self.made.shape == like.shape and kind is np.float32:
            self._first = like[0].numel(), kind
            return self.made.to(like.dtype).to(like.device, non_blocking=True)
        out = np.empty(tuple(like.shape), kind)
        rows = out.reshape(len(out), -1)
        for row, rng in zip(rows, self._each(rows), strict=True):
            rng.standard_normal(dtype=row.dtype.type, out=row)
        return torch.from_numpy(out).to(like.dtype).to(like.device, non_blocking=True)

    def _each(self, rows: np.ndarray) -> Iterable[np.random.Generator]:
        """The generators of the rows, each where it stands: most draw once, and one generator serves all of them."""
        if self._first is None:
            self._first = rows.shape[1], rows.dtype.type
            return _one_after_another(self.keys)
        if not self._generators:
            size, kind = self._first
            self._generators = [generator(*key) for key in self.keys]
            for rng in self._generators:
                rng.standard_normal(size, dtype=kind)
        return self._generators


def _one_after_another(keys: Sequence[tuple[int, ...]]) -> Iterator[np.random.Generator]:
    """`generator(*key)` of each key, used up before the next: to move one costs a tenth of making one."""
    one = generator(0)
    state = one.bit_generator.state
    counter, own = state["state"]["counter"], state["state"]["key"]
    for key in keys:
        own[0], own[1], counter[3], counter[2] = _words(*key)
        one.bit_generator.state = state
        yield one


def uniform_like(noise: Noise, like: Tensor) -> Tensor:
    """float64 numbers uniform in [0, 1], shaped and placed like `like`: the normal distribution function of the noise."""
    u: Tensor = torch.special.ndtr(noise(torch.empty(like.shape, dtype=torch.float64, device=like.device)))
    return u


def keyed(seeds: Sequence[int]) -> Callable[[int], Noise]:
    """Step index -> the Noise of that step for samples with these seeds; what `trajectory` takes."""
    return lambda step: SampleNoise([(seed, step) for seed in seeds])


def brownian(seeds: Sequence[int], lams: Sequence[float]) -> Callable[[int], Noise]:
    """Step index -> the Noise of that step; like `keyed`, with one Brownian path for each seed.

    The first draw of step i is the increment of the path from lams[i - 1] to lams[i] over its standard deviation; further
    draws of a step are the numbers of `keyed`. Increments of different steps are independent, exactly: every law is as
    with `keyed`. Nodes of the path, 0.003 apart in lam, depend on the seed alone; a time inside a cell is drawn between
    them with a number of its own, so that other times change it by no more than the path moves within a cell.

    Args:
        seeds: one a sample, in [0, 2^64).
        lams: log(alpha / sigma) at each time of the trajectory, rising; infinite ends are allowed.
    """
    path = _Path(seeds, [min(max(lam, _LOW), _HIGH) for lam in lams])

    def noise(step: int) -> Noise:
        further, first = SampleNoise([(seed, step) for seed in seeds]), True

        def draw(like: Tensor) -> Tensor:
            nonlocal first
            if first and path.lams[step] > path.lams[step - 1]:
                first = False
                return path.increment(step, like).to(like.device, like.dtype)
            return further(like)

        return draw

    return noise


class _Path:
    """U at lams[0], lams[1], ...; remembers what the next one needs."""

    def __init__(self, seeds: Sequence[int], lams: Sequence[float]) -> None:
        self.seeds, self.lams = seeds, lams
        self.cells = [min(int((lam - _LOW) / _CELL), (1 << _DEPTH) - 1) for lam in lams]
        self._nodes: dict[int, Tensor] = {}
        self._last: tuple[int, Tensor] | None = None

    def increment(self, i: int, like: Tensor) -> Tensor:
        """B(snr_i) - B(snr_(i-1)) in units of its standard deviation, shaped like `like`, float32 or float64, on the CPU."""
        wide = like.dtype == torch.float64
        like = torch.empty(like.shape, dtype=torch.float64 if wide else torch.float32)
        if self._last is not None and (self._last[1].shape != like.shape or self._last[1].dtype != like.dtype):
            self._nodes, self._last = {}, None
        before, now = self._at(i - 1, like), self._at(i, like)
        h = self.lams[i] - self.lams[i - 1]
        scale = 1 / math.sqrt(-math.expm1(-2 * h))
        return torch.add(now * scale, before, alpha=-math.exp(-h) * scale)

    def _at(self, i: int, like: Tensor) -> Tensor:
        """U(lams[i]), between the nodes of its cell; after the earlier times in the same cell, if there are any."""
        if self._last is not None and self._last[0] == i:
            return self._last[1]
        cell = self.cells[i]
        first = i
        while first > 0 and self.cells[first - 1] == cell:
            first -= 1
        nodes: dict[int, Tensor] = {}
        a, left = _LOW + cell * _CELL, self._node(cell, like, nodes)
        b, right = _LOW + (cell + 1) * _CELL, self._node(cell + 1, like, nodes)
        self._nodes = nodes
        if self._last is not None and first <= self._last[0] < i:
            first = self._last[0] + 1
            a, left = self.lams[first - 1], self._last[1]
        for m in self.lams[first : i + 1]:
            up, down = max(m - a, 0.0), max(b - m, 0.0)
            wide = math.sinh(up + down)
            middle = torch.add(left * (math.sinh(down) / wide), right, alpha=math.sinh(up) / wide)
            z = self._normal(like, int(np.float64(m).view(np.uint64)), 1)
            left = middle.add_(z, alpha=math.sqrt(2 * math.sinh(up) * math.sinh(down) / wide))
            a = m
        self._last = (i, left)
        return left

    def _node(self, p: int, like: Tensor, found: dict[int, Tensor]) -> Tensor:
        """U at _LOW + p _CELL: in the middle between two nodes of a coarser level, down from the two ends."""
        if p in found:
            return found[p]
        last = 1 << _DEPTH
        if p in (0, last):
            value = self._nodes[p] if p in self._nodes else self._normal(like, p)
        else:
            width = p & -p  # the level of p: how often 2 divides it
            left, right = self._node(p - width, like, found), self._node(p + width, like, found)
            if p in self._nodes:
                value = self._nodes[p]
            else:
                half = width * _CELL
                value = (left + right).mul_(0.5 / math.cosh(half))
                value.add_(self._normal(like, p), alpha=math.sqrt(math.tanh(half)))
        found[p] = value
        return value

    def _normal(self, like: Tensor, *key: int) -> Tensor:
        return SampleNoise([(seed, _PATH, *key) for seed in self.seeds])(like)


def uniforms(count: int, *key: int) -> Tensor:
    """(count,) float64 numbers in (0, 1), low-discrepancy: one in each of `count` equal strata, in random order.

    u_i = frac(u + pi(i) / count) with one uniform u and a permutation pi (Kingma et al., "Variational Diffusion
    Models", 2021, appendix I.1): each alone is uniform, together they cover the interval evenly.
    """
    rng = generator(*key)
    u = (rng.random() + rng.permutation(count) / count) % 1.0
    return torch.from_numpy(np.clip(u, 2.0**-53, 1 - 2.0**-53))

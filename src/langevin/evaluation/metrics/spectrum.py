"""Spectrum distance: by how many decibels the mean power of generated items differs from that of real ones.

With P(k) the power that the items of a set have in ring k of the frequency plane, averaged over the items,

    D = sqrt( mean_k (10 log10 P_made(k) / P_real(k))^2 )      in decibels

Sees what the eye takes for noise, blur and texture, which distances of features and of pixels hardly see: diffusion models that
stop early lack the highest rings, or have too much there. The mean of an item has no part in it.

Source: Durall et al. 2020, "Watch your up-convolution" (arXiv:2003.01826), for the rings.
"""

from dataclasses import dataclass

import numpy as np

from langevin.errors import DataError
from langevin.evaluation.features import Items, as_unit
from langevin.evaluation.metrics.base import Array, Metric, Named, groups, jackknife

LEAST = 1e-9
"""Of the power of all rings together: what lies below is silence, and silence is compared with silence."""


@dataclass(frozen=True)
class Spectrum(Metric):
    """The distance of two sets of powers in rings, (n, K) and (m, K) as `rings` gives them."""

    def measure(self, real: Array, made: Array) -> list[Named]:
        if min(len(real), len(made)) < 3:
            raise DataError("a spectrum distance needs three items at least in each set")
        a, b = real.mean(0), made.mean(0)
        left = [[_distance((a * len(real) - real[g].sum(0)) / (len(real) - len(g)), b)] for g in groups(len(real))]
        right = [[_distance(a, (b * len(made) - made[g].sum(0)) / (len(made) - len(g)))] for g in groups(len(made))]
        found = jackknife(np.array([_distance(a, b)]), np.array(left), np.array(right), biased=True)[0]
        return [Named("spectrum [dB]", found, (len(real), len(made)))]


def _distance(a: Array, b: Array) -> float:
    least = LEAST * max(float(a.sum()), float(b.sum()), np.finfo(float).tiny)
    return float(np.sqrt(np.mean((10 * np.log10(np.maximum(b, least) / np.maximum(a, least))) ** 2)))


def rings(items: Items) -> Array:
    """The power of items (N, ..., C) in rings of one cycle's width, (N, K): K is half the shortest side, rounded down.

    Items have one to three axes before their channels; the power is the mean over channels and over the waves of a ring. Waves
    beyond the highest full ring (the corners of the plane) are left out.
    """
    axes = tuple(range(1, items.ndim - 1))
    if not axes or min(items.shape[1:-1]) < 4:
        raise DataError(
            f"a spectrum is taken of items with axes of 4 and more before their channels, not {items.shape}"
        )
    sides = items.shape[1:-1]
    grids = [np.fft.fftfreq(side) for side in sides[:-1]] + [np.fft.rfftfreq(sides[-1])]
    waves = np.meshgrid(*(grid * min(sides) for grid in grids), indexing="ij")
    radius = np.rint(np.sqrt(sum(w**2 for w in waves))).astype(int).ravel()
    alone = (waves[-1] == 0) | (np.abs(grids[-1]) == 0.5)
    twice = np.where(alone, 1.0, 2.0).ravel()  # a wave stands for its mirror image too
    member = (radius[:, None] == np.arange(1, min(sides) // 2 + 1)) * twice[:, None]  # (waves, K)
    share = member / (member.sum(0) * np.prod(sides))
    found = []
    step = max(1, 2**20 // items[0].size)
    for start in range(0, len(items), step):
        part = as_unit(items[start : start + step])
        power = (np.abs(np.fft.rfftn(part, axes=axes)) ** 2).mean(-1)
        found.append(power.reshape(len(part), -1) @ share)
    return np.concatenate(found)

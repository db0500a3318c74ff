"""Augmentation, only where asked for: mirrored pictures, as a pure function of (run seed, sample index, step)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def mirrored(seed: int, indices: Sequence[int] | np.ndarray, step: int) -> np.ndarray:
    """(B,) bool, each true with probability one half: which samples are mirrored at this step."""
    with np.errstate(over="ignore"):
        words = _mixed(np.full(len(indices), seed % 2**64, np.uint64))
        words = _mixed(words ^ np.asarray(indices).astype(np.uint64))
        words = _mixed(words ^ np.uint64(step % 2**64))
    return (words >> np.uint64(63)).astype(bool)


def _mixed(words: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea & Flood 2014): each word to one as good as random."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)


def flip(x: Tensor, seed: int, indices: Sequence[int] | np.ndarray, step: int) -> Tensor:
    """The batch (B, C, H, W) with about half of its pictures mirrored left to right."""
    chosen = torch.from_numpy(mirrored(seed, indices, step)).to(x.device)
    return torch.where(chosen[:, None, None, None], x.flip(-1), x)

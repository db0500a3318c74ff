"""The order of training items: a pure function of the run's seed and the step. Workers and resumes have no part in it.

Item k of training is item k of the endless row permutation(0), permutation(1), ... of the indices, one per epoch; batches run on
across the end of an epoch.
"""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    # sorted by raw Philox words keyed (seed, epoch): these are the same in every release, unlike Generator's shuffles
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    places = np.argsort(words, kind="stable")
    places.setflags(write=False)
    return places


def stretch(seed: int, indices: np.ndarray, place: int, length: int) -> np.ndarray:
    """The items (length,) from place 0, 1, ... of the endless row on."""
    count = len(indices)
    if count == 0:
        raise ValueError("no indices to draw a batch from")
    out, end = [], place + length
    while place < end:
        epoch, inside = divmod(place, count)
        taken = np.asarray(indices)[_permutation(seed % 2**64, epoch, count)[inside : inside + end - place]]
        out.append(taken)
        place += len(taken)
    return np.concatenate(out) if out else np.asarray(indices)[:0]

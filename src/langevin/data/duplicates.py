"""Pictures that are equal or look alike, found in one sort a band; and a split that does not run through them.

A picture's thumbnail is 12 x 12 in up to four channels. Its hash has a bit for each of 8 x 8 neighbours to the right:
set where the light falls by more than a little of the picture's own contrast (dHash). Pictures whose hashes differ in
at most six bits, and whose thumbnails differ by at most 8 % of their contrast (root mean square), look alike.
Candidates are the neighbours in the order of the hash, and of the hash turned by 16, 32 and 48 bits: two hashes that
differ in up to three bits agree in one of these 16-bit bands, and the work stays in proportion to the number of pictures.
"""

from collections.abc import Iterator

import numpy as np

MOST = 100_000  # pictures up to which look-alikes are searched for
_SIDE = 12
_NEIGHBOURS = 16
_BITS = 6
_APART = 0.08
_RUN = 4_096  # pictures or pairs compared at once


def thumbnails(items: np.ndarray, *, alpha: bool) -> np.ndarray:
    """(n, H, W, C) to float32 (n, 12, 12, min(C, 4)) by area; what is transparent is black, with its alpha beside it."""
    values = items[..., :4].astype(np.float32)
    if alpha:
        values[..., :3] *= values[..., 3:] / np.iinfo(items.dtype).max
    rows, columns = (_areas(length, _SIDE) for length in items.shape[1:3])
    return np.ascontiguousarray(np.einsum("ih,nhwc,jw->nijc", rows, values, columns, optimize=True), np.float32)


def look_shape(channels: int) -> tuple[int, int, int]:
    """Of one thumbnail."""
    return _SIDE, _SIDE, min(channels, 4)


def _areas(length: int, parts: int) -> np.ndarray:
    """(parts, length): how much of each pixel lies in each part; rows sum to 1."""
    edges = np.linspace(0, length, parts + 1)
    pixel = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.maximum(overlap, 0) * parts / length).astype(np.float32)


def hashes(looks: np.ndarray) -> np.ndarray:
    """(n, 12, 12, C) thumbnails to 64-bit hashes (n,)."""
    grey = looks.mean(-1)
    small = np.einsum("ih,nhw,jw->nij", _areas(_SIDE, 8), grey, _areas(_SIDE, 9), optimize=True)
    falls = small[..., :-1] - small[..., 1:] > 0.05 * small.std((1, 2), keepdims=True)
    return np.packbits(falls.reshape(len(looks), 64), axis=1).view(">u8")[:, 0].astype(np.uint64)


def alike(digests: np.ndarray, looks: np.ndarray | None) -> dict[str, object]:
    """Pairs (i, j), i < j, of items that look alike but are not equal: {"pairs": [...], "searched": bool}.

    Of items that are equal, the first stands for all.
    """
    if looks is None:
        return {"pairs": [], "searched": False}
    _, first = np.unique(digests, axis=0, return_index=True)
    first.sort()
    runs = [first[start : start + _RUN] for start in range(0, len(first), _RUN)]
    codes = np.concatenate([hashes(looks[run]) for run in runs])
    contrast = np.concatenate([looks[run].std((1, 2)).max(-1) for run in runs])
    near = [np.stack(pair, 1) for pair in _candidates(codes)]
    pairs = np.unique(np.concatenate([np.zeros((0, 2), np.int64), *near]), axis=0)
    least = _APART * contrast[pairs].min(1)
    pairs = first[pairs]
    found = [
        _apart(looks[pairs[run, 0]], looks[pairs[run, 1]]) <= least[run]
        for run in (slice(start, start + _RUN) for start in range(0, len(pairs), _RUN))
    ]
    return {"pairs": pairs[np.concatenate([np.zeros(0, bool), *found])].tolist(), "searched": True}


def _candidates(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for turn in (0, 16, 32, 48):
        turned = codes << np.uint64(turn) | codes >> np.uint64((64 - turn) % 64)
        order = np.argsort(turned, kind="stable")
        for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            a, b = order[:-step], order[step:]
            near = _bits(codes[a] ^ codes[b]) <= _BITS
            yield np.minimum(a, b)[near], np.maximum(a, b)[near]


def _bits(words: np.ndarray) -> np.ndarray:
    """How many bits are set in each 64-bit word."""
    return np.unpackbits(words.view(np.uint8).reshape(len(words), 8), axis=1).sum(1)


def _apart(looks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean square difference of thumbnails, pair by pair, the worst channel."""
    return np.sqrt(np.square(looks - others).mean((1, 2)).max(-1))


def groups(digests: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(N,) a number for each item: equal items share it always, look-alikes as long as their group stays small.

    A chain of look-alikes longer than a hundredth of the set (at least 8) is left as it is: keeping it together would
    let it decide the split. The number is the place of the group's smallest digest among all.
    """
    _, equal = np.unique(digests, axis=0, return_inverse=True)
    equal = equal.reshape(len(digests))
    parent = np.arange(equal.max(initial=-1) + 1)
    weight = np.bincount(equal, minlength=len(parent))
    most = max(8, len(digests) // 100)

    def top(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    for i, j in pairs:
        a, b = sorted((top(equal[i]), top(equal[j])))
        if a != b and weight[a] + weight[b] <= most:
            parent[b] = a  # np.unique sorts: the smaller number is the smaller digest
            weight[a] += weight[b]
    return np.array([top(k) for k in range(len(parent))], np.int64)[equal]


def held_out(digests: np.ndarray, pairs: np.ndarray, fraction: float) -> np.ndarray:
    """(N,) bool: about `fraction` of the items, chosen by the contents of each group and by nothing else.

    An item keeps its side when others come or go. A group of more than a twentieth of the set is trained on.
    """
    group = groups(digests, pairs)
    _, first, inverse, counts = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    smallest = np.unique(digests, axis=0)[group[first]]
    # the first bytes of the smallest of many are small; the next ones are as good as random
    position = np.ascontiguousarray(smallest[:, 8:16]).view(">u8")[:, 0].astype(np.float64) / 2.0**64
    chosen = (position < fraction) & (counts <= max(1, len(digests) // 20))
    if not chosen.any() and len(digests) >= 10 and len(counts) > 1:
        chosen[np.argmin(np.where(counts <= max(1, len(digests) // 20), position, 2.0))] = True
    return chosen[inverse.reshape(len(digests))]


def leaks(digests: np.ndarray, pairs: np.ndarray, held: np.ndarray) -> int:
    """Pairs, equal or alike, with one side trained on and the other held out."""
    _, inverse = np.unique(digests, axis=0, return_inverse=True)
    inverse = inverse.reshape(len(digests))
    away, all_of = np.bincount(inverse, held), np.bincount(inverse)
    equal = int((away * (all_of - away)).sum())
    return equal + (int((held[pairs[:, 0]] != held[pairs[:, 1]]).sum()) if len(pairs) else 0)

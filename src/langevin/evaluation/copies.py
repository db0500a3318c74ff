"""Does the model say its training items again? Nearest neighbours among training and held-out items, and what chance would do.

Every generated item has a nearest neighbour in the pool of all real items, those trained on and those held out. How near it is
for what it is, is its **closeness**

    c = 1 - d_1 / (mean of d_2 ... d_K)        K = 16 neighbours in the pool; 1 is the same item, about 0.1 is usual

**Whether there is memorisation at all.** A model that does not know which real items it was shown has no reason to be near to
those rather than to the held-out ones. So S = sum of c^2 over the generated items whose nearest neighbour is a training item is
compared with what it would be had other items been held out: the labels training / held out are dealt anew to the pool, as many of
each. Neighbours and closeness do not depend on the labels, so the test is exact: where the model is innocent and the split was
random, p is uniform.

**Which items are copies.** Held-out items that are looked up among the training items as if they were generated say how close new
real items come. A generated item is named where it is closer than they are by more than luck: p-values by rank, and the
procedure of Benjamini and Hochberg, so that at most one in a hundred named items is named wrongly. Where few are held out that
names hardly anything; so an item is named too where it is twice as near as its neighbours are (c above 1/2), and twice as near
again, in 1 - c, as all but one in a hundred held-out items are, or as c = 1/2 is where there is no hundred. The same item, to half a
step of its type in the mean, is always named.

Items that repeat another exactly count once: beside its twins nothing is close. A held-out item that is a training item too was
not kept from the model, and counts as a training item alone.

Source: the relative distance is that of Carlini et al. 2023, "Extracting training data from diffusion models" (arXiv:2301.13188),
section 5.1; Benjamini and Hochberg 1995. The test is a permutation test (Fisher 1935).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from langevin.errors import DataError
from langevin.evaluation.features import Array, Features, Items, as_unit, pooled
from langevin.evaluation.neighbours import Neighbours, neighbours

NUM = 16
"""Neighbours by whose mean distance closeness is told."""
PERMUTATIONS = 10_000
WRONG = 0.01
"""Share of the named items that may be named wrongly."""
NEAR = 0.5
"""Closeness above which an item may be called a copy without many held-out items beside it."""
MOST_VALUES = 1024
"""Pictures are compared in so many values at most, averaged down to fewer pixels where they have more."""
SURE = 0.001
"""Below this p-value a set is said to hold copies."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found of n generated items.

    Attributes:
        p: chance to be so near to training items where the model has memorised nothing; nan without held-out items.
        nearer: share of generated items whose nearest real item is a training item.
        expected: what that share is in the mean without memorisation.
        index: (n,) nearest training item of each.
        distance: (n,) and how far it is, in the space that was searched.
        closeness: (n,) among training items.
        p_each: (n,) chance of a new real item to be as close; nan without held-out items.
        named: (k,) which generated items are copies, the closest first.
        space: "pixels" or the features' name.
        held_out: how many held-out items stood beside, those that are training items or repeat another not counted.
    """

    p: float
    nearer: float
    expected: float
    index: NDArray[np.intp]
    distance: Array
    closeness: Array
    p_each: Array
    named: NDArray[np.intp]
    space: str
    held_out: int

    @property
    def copies(self) -> bool:
        """Whether there is memorisation beyond luck."""
        return bool(self.p < SURE) or len(self.named) > 0

    @cached_property
    def sources(self) -> list[tuple[int, int]]:
        """Training items that were copied and how often, the most frequent first."""
        items, counts = np.unique(self.index[self.named], return_counts=True)
        return [(int(items[k]), int(counts[k])) for k in np.lexsort((items, -counts))]


@dataclass(frozen=True, eq=False)
class Pool:
    """The real side of an audit, made once: training items and held-out items (N, ...) of the same kind, and where to look.

    features: None is the items' own values.
    Raises DataError where the items are of two kinds.
    """

    train: Items
    held_out: Items
    features: Features | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.held_out):
            self._refuse_others("held-out", self.held_out)

    def _refuse_others(self, name: str, items: Items) -> None:
        if items.shape[1:] != self.train.shape[1:] or items.dtype != self.train.dtype:
            raise DataError(
                f"{name} items are {items.dtype} {items.shape[1:]}, "
                f"training items {self.train.dtype} {self.train.shape[1:]}"
            )

    def audit(self, made: Items) -> Audit:
        """Of generated items (n, ...), n at least 1.

        Raises DataError where there are not more than `NUM` different training items, where the generated ones are of another
        kind, and where any are not finite.
        """
        made = np.asarray(made)
        self._refuse_others("generated", made)
        if not len(made):
            raise DataError("there are no generated items among which to seek copies")
        if len(self._distinct) <= NUM:
            raise DataError(f"copies are sought among more than {NUM} different items, not {len(self._distinct)}")
        asked = self._values(made)
        near = neighbours(asked, self._train, NUM)
        index, close = self._distinct[near.index[:, 0]], _closeness(near)
        p_each, p, nearer = np.full(len(made), np.nan), float("nan"), float("nan")
        found = _same(made, self.train, index) | (close > self._rare)
        if len(self._unseen):
            usual = np.sort(self._usual)
            p_each = (1 + len(usual) - np.searchsorted(usual, close, side="left")) / (1 + len(usual))
            p, nearer = self._test(near, neighbours(asked, self._held_out, NUM))
            found |= _discoveries(p_each)
        named = np.flatnonzero(found)
        return Audit(
            p,
            nearer,
            len(self._train) / (len(self._train) + len(self._unseen)),
            index,
            near.distance[:, 0],
            close,
            p_each,
            named[np.argsort(-close[named], kind="stable")],
            self.features.name if self.features else "pixels",
            len(self._unseen),
        )

    @cached_property
    def _distinct(self) -> NDArray[np.intp]:
        """Rows of the training items that repeat no earlier one."""
        return np.fromiter((rows[0] for rows in self._rows.values()), np.intp)

    @cached_property
    def _rows(self) -> dict[bytes, list[int]]:
        """The rows of every different training item, by its digest."""
        rows: dict[bytes, list[int]] = {}
        for k, item in enumerate(self.train):
            rows.setdefault(_digest(item), []).append(k)
        return rows

    @cached_property
    def _unseen(self) -> NDArray[np.intp]:
        """Rows of the held-out items that are no training items and repeat no earlier one."""
        first: dict[bytes, int] = {}
        for k, item in enumerate(self.held_out):
            first.setdefault(_digest(item), k)
        return np.fromiter((k for digest, k in first.items() if digest not in self._rows), np.intp)

    def repeats(self, index: int) -> int:
        """How often a training item is in the training set."""
        return len(self._rows[_digest(self.train[index])])

    @property
    def repeated(self) -> list[tuple[int, int]]:
        """Training items that are there more than once, by their first row, and how often: the most frequent first."""
        often = ((rows[0], len(rows)) for rows in self._rows.values() if len(rows) > 1)
        return sorted(often, key=lambda one: (-one[1], one[0]))

    def _values(self, items: Items) -> Array:
        """(n, D) float32. Raises DataError where they are not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._searched(items)
        if not np.isfinite(found).all():
            raise DataError("items hold values that are not finite, or too large to compare")
        return found

    def _searched(self, items: Items) -> Array:
        if self.features:
            return np.asarray(self.features(items), np.float32)
        side = 32
        while (
            items.ndim == 4
            and side > 8
            and min(side, items.shape[1]) * min(side, items.shape[2]) * items.shape[3] > MOST_VALUES
        ):
            side //= 2
        parts = (items[i : i + 2048] for i in range(0, len(items), 2048))
        return np.concatenate([np.asarray(pooled(part, side), np.float32).reshape(len(part), -1) for part in parts])

    @cached_property
    def _train(self) -> Array:
        return self._values(self.train)[self._distinct]

    @cached_property
    def _held_out(self) -> Array:
        return self._values(self.held_out[self._unseen])

    @cached_property
    def _rare(self) -> float:
        """Closeness above which an item is a copy, however few are held out."""
        known = np.append(self._usual, NEAR) if len(self._unseen) else np.array([NEAR])
        return max(NEAR, (1 + float(np.quantile(known, 0.99, method="higher"))) / 2)

    @cached_property
    def _usual(self) -> Array:
        """(H,) closeness of held-out items among the training items."""
        return _closeness(neighbours(self._held_out, self._train, NUM))

    def _test(self, train: Neighbours, held_out: Neighbours) -> tuple[float, float]:
        """The p-value, and the share of items whose nearest is a training item."""
        distance = np.concatenate([train.distance, held_out.distance], axis=1)
        index = np.concatenate([train.index, len(self._train) + held_out.index], axis=1)
        order = distance.argsort(1, kind="stable")[:, :NUM]
        pool = Neighbours(np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1))
        first = pool.index[:, 0]
        items, inverse = np.unique(first, return_inverse=True)
        weights = np.bincount(inverse, weights=np.clip(_closeness(pool), 0, 1) ** 2)
        trained = items < len(self._train)
        nearer = float((first < len(self._train)).mean())
        if not weights.any():
            return 1.0, nearer
        rng = np.random.default_rng((self.seed, 7))
        seen, above, equal = float(weights @ trained), 0, 0
        for _ in range(PERMUTATIONS // 100):
            # the labels of the few items that matter, dealt out of the whole pool: as many of them are training items as chance has
            many = rng.hypergeometric(len(self._train), len(self._held_out), len(items), 100)
            ranks = rng.random((100, len(items))).argsort(1).argsort(1)
            drawn = (ranks < many[:, None]) @ weights
            above += int((drawn > seen * (1 + 1e-12)).sum())
            equal += int((np.abs(drawn - seen) <= 1e-12 * seen).sum())
        return float((1 + above + rng.random() * equal) / (1 + PERMUTATIONS)), nearer


def _digest(item: Items) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(item).data, digest_size=16).digest()


def _closeness(near: Neighbours) -> Array:
    """(n,) 1 - first distance over the mean of the others; 1 where all are 0."""
    others = near.distance[:, 1:].mean(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(others > 0, 1 - near.distance[:, 0] / others, 1.0)


def _same(made: Items, train: Items, index: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether items (n, ...) differ from training items by half a step of their type at most, in the mean over their values;
    floats by a millionth of their spread."""
    found = np.zeros(len(made), bool)
    for start in range(0, len(made), 2048):
        part = slice(start, start + 2048)
        a, b = (as_unit(x).reshape(len(x), -1) for x in (made[part], train[index[part]]))
        step = 0.5 / np.iinfo(made.dtype).max if made.dtype.kind == "u" else 1e-6 * float(b.std())
        found[part] = np.abs(a - b).mean(1) <= step
    return found


def _discoveries(p: Array) -> NDArray[np.bool_]:
    """Benjamini and Hochberg's choice among p-values, at `WRONG`; none where they are nan."""
    order = np.sort(p)
    passed = np.flatnonzero(order <= WRONG * np.arange(1, len(p) + 1) / len(p))
    return p <= order[passed[-1]] if len(passed) else np.zeros(len(p), bool)

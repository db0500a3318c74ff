"""Do pictures show what their texts say? The mean CLIP score of generated pictures beside that of real, unseen ones.

Source: Hessel et al. 2021, "CLIPScore" (arXiv:2104.08718).
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from langevin.evaluation.features import Array, Items
from langevin.evaluation.figures import Figure, shown_on
from langevin.evaluation.metrics.base import Estimate, Named


class Reader(Protocol):
    """What knows pictures and texts, such as `pretrained.clip.Clip`."""

    def clip_score(self, items: Items, texts: Sequence[str]) -> Array:
        """(N,) in [0, 100] for items (N, H, W, C) and N texts."""


def text_agreement(
    reader: Reader, fresh: Items, fresh_texts: Sequence[str], generated: Items, texts: Sequence[str]
) -> Figure:
    """Of pairs whose text is not empty; the floor is that of real pairs, as many as generated where there are so many."""
    made, real = (
        _scores(reader, items, said)
        for items, said in ((generated, texts), (fresh[: len(texts)], fresh_texts[: len(texts)]))
    )
    counts = (len(real), len(made))
    return shown_on(
        Named("clip score", _mean(made), counts, True),
        Named("clip score", _mean(real), counts, True),
        f"held-out ({len(real):,})",
    )


def _scores(reader: Reader, items: Items, texts: Sequence[str]) -> Array:
    rows = [k for k, text in enumerate(texts) if text]
    return reader.clip_score(np.asarray(items)[rows], [texts[k] for k in rows])


def _mean(scores: Array) -> Estimate:
    return Estimate(float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores))))

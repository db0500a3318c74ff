"""`digits`: the 1,797 handwritten digits that come with scikit-learn, 8 by 8 pixels."""

from pathlib import Path

import numpy as np

from langevin.data.sources.base import Blocks, Source


def digits() -> Source:
    """The levels 0 to 16 as uint8, round(level * 255 / 16): 17 levels, all apart."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    levels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Source(
        where="digits",
        kind="built-in",
        names=[f"digits[{i}]" for i in range(len(levels))],
        pictures=Blocks(lambda: iter([levels]), levels.shape, levels.dtype),
        key="scikit-learn digits",
        columns={"label": bunch.target.astype(np.int64)},
        classes=tuple(str(name) for name in bunch.target_names),
        notes=("scikit-learn's levels 0 to 16 are spread over 0 to 255",),
        squeeze=True,
    )


def is_digits(path: str | Path) -> bool:
    """The name means the built-in set unless something of that name lies there."""
    return str(path) == "digits" and not Path("digits").exists()

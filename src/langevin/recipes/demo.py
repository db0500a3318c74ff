"""`langevin demo`: the whole way on data that come with scikit-learn, in less than two minutes."""

from langevin.recipes.console import Console
from langevin.recipes.outcome import Run
from langevin.recipes.train import train


def demo(*, minutes: float = 1.0, seed: int = 0, console: Console | None = None) -> Run:
    """Train on 1,797 real handwritten digits (8 x 8), by digit; see `langevin.recipes.train.train`."""
    return train("digits", minutes=minutes, seed=seed, out="demo", console=console)

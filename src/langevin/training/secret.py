"""Numbers that nobody can know beforehand, and that a resumed run finds again."""

import secrets
from dataclasses import dataclass

import numpy as np

from langevin.rng import generator

CHOICE, NOISE = 1, 2
"""What is drawn: the items of a step, and its noise."""


@dataclass(frozen=True)
class Secret:
    """128 bits from the system, as two words."""

    words: tuple[int, int]

    @staticmethod
    def new() -> "Secret":
        """One that has not been used."""
        return Secret((secrets.randbits(64), secrets.randbits(64)))

    def generator(self, draw: int, stream: int) -> np.random.Generator:
        """The numbers of draw 0, 1, ..."""
        return generator(*self.words, draw, stream)

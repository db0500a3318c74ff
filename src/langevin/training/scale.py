"""The scale of the loss where gradients are of half precision (Micikevicius et al., "Mixed Precision Training", 2018).

float16 has 5 bits of exponent: small gradients become 0. The loss is therefore multiplied by a factor as large as can be, and
the gradient divided by it again. A gradient that is not finite halves the factor, 2000 good ones in a row double it: the rule
of `torch.amp.GradScaler`, decided by the norm of the whole gradient, so that all processes decide alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GROWTH = 2000
"""Good steps in a row, after which the factor is doubled."""


@dataclass
class LossScale:
    """Saved with the run.

    Attributes:
        factor: what the loss is multiplied by; 1 and still where precision needs none.
        good: steps in a row that were finite.
    """

    factor: float = 1.0
    good: int = 0

    @staticmethod
    def of(precision: str) -> "LossScale":
        """For products of that precision, before the first step."""
        return LossScale(65536.0 if precision == "float16" else 1.0, 0)

    def up(self, loss: Tensor) -> Tensor:
        """The loss, scaled."""
        return loss if self.factor == 1 else loss * self.factor

    def down(self, gradients: Sequence[Tensor]) -> None:
        """Undo it in the gradients, in place."""
        if self.factor != 1:
            torch._foreach_mul_(gradients, 1 / self.factor)

    def heed(self, finite: bool, precision: str) -> bool:
        """Take note of a step; True where only the scale was to blame for numbers that are not finite."""
        if precision != "float16":
            return False
        if not finite:
            blame, self.factor, self.good = self.factor > 1, max(1.0, self.factor / 2), 0
            return blame
        self.good += 1
        if self.good == GROWTH:
            self.factor, self.good = 2 * self.factor, 0
        return False

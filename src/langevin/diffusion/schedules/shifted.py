"""Resolution shift: the same curve of (alpha, sigma) at other times, so that sigma / alpha is multiplied by `shift`.

    log_snr'(t) = log_snr(t) - 2 log(shift)

Hoogeboom et al., "Simple Diffusion", 2023, eq. 4 (shift = side / 64); Esser et al. 2024, eq. 23: for the flow schedule it
is t' = shift t / (1 + (shift - 1) t). Larger pictures need shift > 1: neighbouring pixels tell much of each other.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class Shifted(Schedule):
    """`base` read at the time where it has the shifted log SNR (its formula goes on beyond t = 1 where alpha is not 0)."""

    base: Schedule
    shift: float = 1.0

    def _time(self, t: Tensor) -> Tensor:
        return self.base.inverse(self.base.log_snr(t) - 2 * math.log(self.shift))

    def alpha(self, t: Tensor) -> Tensor:
        return self.base.alpha(self._time(t))

    def sigma(self, t: Tensor) -> Tensor:
        return self.base.sigma(self._time(t))

    def inverse(self, log_snr: Tensor) -> Tensor:
        return self.base.inverse(log_snr + 2 * math.log(self.shift))

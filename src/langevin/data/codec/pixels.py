"""Pixels as they are: z = (2 x - low - high) / (high - low).

For integers low = 0 and high = the dtype's largest value M, so z = (2 x - M) / M: 0 is -1, M is 1, and x and M - x are
each other's negatives exactly. Float32 holds all 65,536 levels apart, so encode then decode is exact.
"""

import torch
from torch import Tensor

from langevin.data.codec.base import Codec
from langevin.errors import UsageError

_LEVELS = {"uint8": 255.0, "uint16": 65535.0}
_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}


class Pixels(Codec):
    """Every picture dtype and any number of channels; alpha is a channel like the others (straight, not premultiplied).

    Args:
        dtype: "uint8", "uint16" or "float32".
        channels: C.
        low, high: the range of float data that becomes [-1, 1]; integers use the whole range of their dtype.
        squeeze: the data had no channel axis. `decode` gives (B, H, W, C) all the same; who hands samples to a person
            drops the axis.
    """

    def __init__(
        self, *, dtype: str, channels: int, low: float | None = None, high: float | None = None, squeeze: bool = False
    ) -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise UsageError(f"pixels are uint8, uint16 or float32, not {dtype}")
        if dtype in _LEVELS:
            self.low, self.high = 0.0, _LEVELS[dtype]
        elif low is None or high is None or not high > low:
            raise UsageError(f"float pixels need a range, low < high; low is {low}, high is {high}")
        else:
            self.low, self.high = low, high
        self.dtype, self.channels, self.squeeze = dtype, channels, squeeze
        self.config = {"dtype": dtype, "channels": channels, "low": low, "high": high, "squeeze": squeeze}

    def encode(self, x: Tensor) -> Tensor:
        z = x.movedim(-1, 1).to(torch.float32)
        return ((2 * z - (self.low + self.high)) / (self.high - self.low)).contiguous()

    def decode(self, z: Tensor) -> Tensor:
        """Integers are rounded and clamped to their dtype (nan becomes 0); floats may leave [low, high] as z leaves [-1, 1]."""
        x = (z.float() * (self.high - self.low) + (self.low + self.high)) / 2
        if self.dtype in _LEVELS:
            x = x.nan_to_num(0.0, self.high, 0.0).round().clamp(0, self.high).to(torch.int32)
        return x.movedim(1, -1).contiguous().to(_DTYPES[self.dtype])

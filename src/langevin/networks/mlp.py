"""The default network for vectors: residual blocks with adaptive layer norm."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langevin.errors import UsageError
from langevin.networks.base import Network
from langevin.networks.conditions import Conditions
from langevin.networks.layers import zero


class _Block(nn.Module):
    def __init__(self, width: int, features: int, dropout: float) -> None:
        super().__init__()
        self.modulation = zero(nn.Linear(features, 2 * width))
        self.wide = nn.Linear(width, 2 * width)
        self.out = zero(nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.modulation(e).chunk(2, -1)
        h = torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)
        return x + self.out(self.dropout(F.silu(self.wide(h))))


class MLP(Network):
    """A residual network over vectors (B, channels).

    Args:
        channels: length of the vector.
        out_channels: of the output; the vector's own if None.
        width: of the stream.
        blocks: residual blocks, each widening twofold.
        features: width of the embedding of noise level and conditions.
        dropout: share of values that a block forgets in training, 0 to 1.
        conditions: name -> setting, see `Conditions`; tokens are for networks that attend.

    Raises:
        UsageError: for sizes or conditions that cannot be.
    """

    def __init__(
        self,
        *,
        channels: int,
        out_channels: int | None = None,
        width: int = 256,
        blocks: int = 3,
        features: int = 128,
        dropout: float = 0.0,
        conditions: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        if min(channels, out_channels, width, blocks, features) < 1:
            raise UsageError("channels, width, blocks and features must be positive")
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout lies in [0, 1), not {dropout}")
        self.config = {
            "channels": channels,
            "out_channels": out_channels,
            "width": width,
            "blocks": blocks,
            "features": features,
            "dropout": dropout,
            "conditions": {name: dict(setting) for name, setting in (conditions or {}).items()},
        }
        self.conditions = Conditions(conditions or {}, features)
        if self.conditions.tokens:
            raise UsageError("a network of vectors takes no tokens", help="use a U-Net, or a class or number condition")
        self.enter = nn.Linear(channels + self.conditions.extra_channels, width)
        self.blocks = nn.ModuleList(_Block(width, features, dropout) for _ in range(blocks))
        self.leave = zero(nn.Linear(width, out_channels))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """See `Network.forward`. x: (B, channels)."""
        if x.dim() != 2:
            raise UsageError(f"the network wants (batch, channels), not {tuple(x.shape)}")
        self.conditions.check(cond)
        e = self.conditions.embed(c_noise, cond)
        h = self.enter(self.conditions.beside(x, cond))
        for block in self.blocks:
            h = block(h, e)
        return self.leave(F.layer_norm(h, h.shape[-1:]))

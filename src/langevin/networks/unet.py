"""The default network for pictures, sound and volumes: a U-Net that spends its arithmetic at low resolution.

A picture enters by one strided convolution, which is pixel-unshuffle and a 3x3 convolution in one (Shi et al. 2016,
arXiv:1609.05158), so that nothing is ever computed at full resolution; it leaves by a convolution and pixel shuffle. Between them:
residual blocks with adaptive layer norm, skip connections, and attention at the lowest level (Ronneberger et al. 2015,
arXiv:1505.04597; Dhariwal and Nichol 2021, arXiv:2105.05233, appendix A).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, cat, nn

from langevin.errors import UsageError
from langevin.networks.base import Network
from langevin.networks.conditions import Conditions
from langevin.networks.layers import (
    CONV,
    CONV_TRANSPOSE,
    Attention,
    Residual,
    channels_last,
    crop,
    even,
    places,
    spread,
    zero,
)


class UNet(Network):
    """A U-Net over 1, 2 or 3 spatial axes of any size.

    Args:
        channels: of the sample.
        out_channels: of the output; the sample's own if None.
        dims: number of spatial axes, 1 to 3.
        patch: pixels to a side that the first convolution makes one; sizes that are no multiple are filled with zeros
            at the end, and the output is cropped. Level i works at 1 / (patch * 2**i) of the resolution, rounded up.
        widths: channels of each level, the finest first.
        blocks: residual blocks of each level on the way down, and as many on the way up.
        attention: levels, by index, that attend: after their blocks on the way down, and on the way up too except for
            the lowest, where down meets up.
        head: channels of an attention head, at least.
        features: width of the embedding of noise level and conditions.
        dropout: share of values that a residual block forgets in training, 0 to 1.
        coordinates: whether a pixel is told where it lies, each axis from -1 to 1, as further channels of the input.
        conditions: name -> setting, see `Conditions`.

    Raises:
        UsageError: for sizes that cannot be.
    """

    def __init__(
        self,
        *,
        channels: int,
        out_channels: int | None = None,
        dims: int = 2,
        patch: int = 2,
        widths: Sequence[int] = (64, 128),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        head: int = 64,
        features: int = 256,
        dropout: float = 0.0,
        coordinates: bool = False,
        conditions: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout lies in [0, 1), not {dropout}")
        if dims not in (1, 2, 3):
            raise UsageError(f"dims must be 1, 2 or 3, not {dims}")
        if not widths or min(channels, out_channels, patch, blocks, features, *widths) < 1:
            raise UsageError("channels, patch, widths, blocks and features must be positive, and there must be a level")
        if any(not 0 <= i < len(widths) for i in attention):
            raise UsageError(f"attention names level {max(attention)}, but levels are 0 to {len(widths) - 1}")
        if any(widths[i] % max(1, widths[i] // head) for i in attention):
            raise UsageError(f"a level that attends cannot be cut into heads of {head} channels or a little more")
        self.config = {
            "channels": channels,
            "out_channels": out_channels,
            "dims": dims,
            "patch": patch,
            "widths": list(widths),
            "blocks": blocks,
            "attention": list(attention),
            "head": head,
            "features": features,
            "dropout": dropout,
            "coordinates": coordinates,
            "conditions": {name: dict(setting) for name, setting in (conditions or {}).items()},
        }
        self.dims, self.patch, self.coordinates = dims, patch, coordinates
        self.conditions = Conditions(conditions or {}, features)
        tokens = bool(self.conditions.tokens)

        def chain(level: int, first: int) -> list[nn.Module]:
            w = widths[level]
            attend = [Attention(dims, w, head, features, tokens)] if level in attention else []
            return [Residual(dims, n, w, features, dropout) for n in [first] + [w] * (blocks - 1)] + attend

        steps = list(pairwise(widths))
        bottom = len(steps)
        enter = channels + self.conditions.extra_channels + dims * coordinates
        self.enter = CONV[dims](enter, widths[0], 3 * patch, stride=patch, padding=patch)  # unshuffle, then 3x3
        self.down = nn.ModuleList(nn.ModuleList(chain(i, fine)) for i, (fine, _) in enumerate(steps))
        self.shrink = nn.ModuleList(CONV[dims](fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.bottom = nn.ModuleList(
            chain(bottom, widths[-1])
            + [Residual(dims, widths[-1], widths[-1], features, dropout) for _ in range(blocks)]
        )
        self.grow = nn.ModuleList(CONV_TRANSPOSE[dims](coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.ModuleList(chain(i, 2 * fine)) for i, (fine, _) in enumerate(steps))
        self.norm = nn.LayerNorm(widths[0])
        self.leave = zero(CONV[dims](widths[0], out_channels * patch**dims, 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """See `Network.forward`. x: (B, channels, *spatial), as many spatial axes as `dims`."""
        if x.dim() != self.dims + 2:
            raise UsageError(f"the network wants (batch, channels, {self.dims} spatial axes), not {tuple(x.shape)}")
        self.conditions.check(cond)
        e, sequence = self.conditions.embed(c_noise, cond), self.conditions.sequence(c_noise, cond)
        given = self.conditions.beside(x, cond)
        if self.coordinates:
            given = cat([given, places(x)], 1)
        h = channels_last(self.enter(even(given, self.patch)))
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            for layer in level:
                h = layer(h, e, sequence)
            skips.append(h)
            h = shrink(even(h))
        for layer in self.bottom:
            h = layer(h, e, sequence)
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            skip = skips.pop()
            h = cat([crop(grow(h), skip.shape[2:]), skip], 1)
            for layer in level:
                h = layer(h, e, sequence)
        h = nn.functional.silu(self.norm(h.movedim(1, -1))).movedim(-1, 1)
        return crop(spread(self.leave(h), self.patch), x.shape[2:])

"""The parts of the U-Net, in 1, 2 or 3 dimensions.

Pictures lie channels last in memory, so that normalising over the channels of each pixel is a layer norm over the last,
contiguous axis, and 1x1 convolutions are matrix products. Nothing here mixes the samples of a batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tokens = tuple[Tensor, Tensor] | None  # (B, L, features) and which of them count, (B, L)
CONV = (None, nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONV_TRANSPOSE = (None, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *spatial) with the same values, its channels contiguous in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def zero(layer: nn.Module) -> nn.Module:
    """The layer with weights and bias 0."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def even(x: Tensor, multiple: int = 2) -> Tensor:
    """x with zeros at the end of each spatial axis, up to the next multiple."""
    pad = [p for n in reversed(x.shape[2:]) for p in (0, -n % multiple)]
    return channels_last(F.pad(x, pad)) if any(pad) else x


def places(x: Tensor) -> Tensor:
    """(B, dims, *spatial): where each element of x (B, C, *spatial) lies, along each axis from -1 to 1."""
    axes = [torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in x.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, *x.shape[2:])


def crop(x: Tensor, spatial: torch.Size) -> Tensor:
    """The first `spatial` elements of each spatial axis."""
    return x[(..., *(slice(n) for n in spatial))]


def spread(x: Tensor, patch: int) -> Tensor:
    """(B, C * patch**dims, *spatial) -> (B, C, *(patch * spatial)): pixel shuffle in any number of dimensions."""
    dims = x.dim() - 2
    x = x.unflatten(1, (-1, *[patch] * dims))
    order = [i for axis in range(dims) for i in (2 + dims + axis, 2 + axis)]
    x = x.permute(0, 1, *order)
    return x.reshape(*x.shape[:2], *(patch * n for n in x.shape[2::2]))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(d)) v over (B, heads, L, d); mask (..., L of k) says which positions count.

    On the CPU in plain products: for the few positions of a lowest level they are three times as fast as the fused kernel.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


class Residual(nn.Module):
    """x + conv(silu(conv(norm(x) * (1 + scale) + shift))), scale and shift linear in the embedding.

    One norm and one activation for two convolutions: each pass over memory that is left out buys steps. In training the
    second convolution sees its input without a share `dropout` of the values.
    """

    def __init__(self, dims: int, width: int, out: int, features: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.modulation = zero(nn.Linear(features, 2 * width))
        self.conv = CONV[dims](width, out, 3, padding=1)
        self.out = zero(CONV[dims](out, out, 3, padding=1))
        self.straight = CONV[dims](width, out, 1) if width != out else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, e: Tensor, sequence: Tokens = None) -> Tensor:
        h = x.movedim(1, -1)
        scale, shift = self.modulation(e).view(len(e), *[1] * (h.dim() - 2), -1).chunk(2, -1)
        h = torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), 1 + scale).movedim(-1, 1)
        return self.straight(x) + self.out(self.dropout(F.silu(self.conv(h))))


class Attention(nn.Module):
    """x + attention of every pixel to every pixel of its sample, and to the tokens (B, L, features) if any."""

    def __init__(self, dims: int, width: int, head: int, features: int, tokens: bool) -> None:
        super().__init__()
        self.heads = max(1, width // head)
        self.norm = nn.LayerNorm(width)
        self.qkv = CONV[dims](width, 3 * width, 1)
        self.tokens = nn.Linear(features, 2 * width) if tokens else None
        self.out = zero(CONV[dims](width, width, 1))

    def forward(self, x: Tensor, e: Tensor, sequence: Tokens = None) -> Tensor:
        h = self.qkv(self.norm(x.movedim(1, -1)).movedim(-1, 1))
        q, k, v = h.flatten(2).transpose(1, 2).chunk(3, -1)
        mask = None
        if self.tokens is not None and sequence is not None:
            more, counts = sequence
            k, v = (torch.cat(pair, 1) for pair in zip((k, v), self.tokens(more).chunk(2, -1), strict=True))
            mask = F.pad(counts, (q.shape[1], 0), value=True)[:, None, None]
        q, k, v = (u.unflatten(-1, (self.heads, -1)).transpose(1, 2) for u in (q, k, v))
        a = attend(q, k, v, mask).transpose(1, 2).flatten(2)
        return x + self.out(a.transpose(1, 2).unflatten(2, x.shape[2:]))

"""What a network is told beside the noisy sample: the noise level and named conditions.

Each condition has a kind, and each kind has a way of saying "no condition" for one sample of a batch; a key that is
missing in `cond` says it for the whole batch, with the same result bit for bit.

| setting                            | cond[name]                                        | no condition        |
|------------------------------------|---------------------------------------------------|---------------------|
| {"kind": "class", "num": n}        | int64 (B,), 0 .. n - 1                            | the index n         |
| {"kind": "number"}                 | float (B,), of about unit variance                | NaN                 |
| {"kind": "tokens", "dim": d}       | float (B, L, d), and `name_mask` bool (B, L)      | a mask of all False |
| {"kind": "image", "channels": k}   | float (B, k, *spatial), laid beside the sample    | NaN                 |
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from langevin.errors import UsageError, nearest

Cond = Mapping[str, Tensor] | None

_KINDS = {"class": {"num"}, "number": set(), "tokens": {"dim"}, "image": {"channels"}}


class Fourier(nn.Module):
    """(B,) -> (B, features): sines and cosines of geometrically spaced frequencies, fastest period 1/2, slowest 32."""

    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        log_f = torch.linspace(math.log(1 / 32), math.log(2), features // 2)
        self.register_buffer("frequencies", 2 * math.pi * log_f.exp(), persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        angle = v[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], 1) * math.sqrt(2)


class _Number(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.fourier = Fourier(64)
        self.linear = nn.Linear(64 + 1, features)

    def forward(self, v: Tensor) -> Tensor:
        given = ~v.isnan()
        v = torch.where(given, v, 0.0)
        return self.linear(torch.cat([self.fourier(v), v[:, None]], 1)) * given[:, None]


class Conditions(nn.Module):
    """The embedding of the noise level and of all conditions.

    Args:
        conditions: name -> setting, as in the table above.
        features: width of the embedding.

    Raises:
        UsageError: for a kind or setting that does not exist, or a key in `cond` that was never declared.
    """

    def __init__(self, conditions: Mapping[str, Mapping[str, Any]], features: int) -> None:
        super().__init__()
        for name, setting in conditions.items():
            kind = setting.get("kind", "")
            if kind not in _KINDS:
                raise UsageError(f"condition `{name}` is of unknown kind `{kind}`", help=nearest(kind, _KINDS))
            if set(setting) != _KINDS[kind] | {"kind"}:
                wanted = ", ".join(sorted(_KINDS[kind])) or "no setting"
                raise UsageError(
                    f"condition `{name}` of kind `{kind}` takes {wanted}, not {sorted(set(setting) - {'kind'})}"
                )
        of = {kind: {n: dict(s) for n, s in conditions.items() if s["kind"] == kind} for kind in _KINDS}
        self.num = {n: s["num"] for n, s in of["class"].items()}
        self.images = {n: s["channels"] for n, s in of["image"].items()}
        self.known = {*conditions, *(f"{n}_mask" for n in of["tokens"])}
        self.noise = nn.Sequential(Fourier(64), nn.Linear(64, features), nn.SiLU(), nn.Linear(features, features))
        self.classes = nn.ModuleDict({n: nn.Embedding(k + 1, features) for n, k in self.num.items()})
        self.numbers = nn.ModuleDict({n: _Number(features) for n in of["number"]})
        self.tokens = nn.ModuleDict({n: nn.Linear(s["dim"], features) for n, s in of["tokens"].items()})
        self.no_token = nn.Parameter(torch.zeros(features)) if self.tokens else None

    @property
    def extra_channels(self) -> int:
        """Input channels that image conditions add: their own and one that says whether they are given."""
        return sum(k + 1 for k in self.images.values())

    def check(self, cond: Cond) -> None:
        for key in cond or ():
            if key not in self.known:
                raise UsageError(
                    f"the network knows no condition `{key}`", help=nearest(key, self.known) if self.known else ""
                )

    def embed(self, c_noise: Tensor, cond: Cond) -> Tensor:
        """(B, features): noise level, classes and numbers."""
        cond, e = cond or {}, self.noise(c_noise)
        for name, embedding in self.classes.items():
            index = cond.get(name)
            e = e + embedding(torch.full_like(c_noise, self.num[name], dtype=torch.long) if index is None else index)
        for name, number in self.numbers.items():
            if name in cond:
                e = e + number(cond[name].to(e.dtype))
        return nn.functional.silu(e)

    def sequence(self, c_noise: Tensor, cond: Cond) -> tuple[Tensor, Tensor] | None:
        """Tokens (B, 1 + L, features) and which of them count, bool (B, 1 + L). The first, learned, always does."""
        if self.no_token is None:
            return None
        cond, b = cond or {}, len(c_noise)
        parts, masks = [self.no_token.expand(b, 1, -1)], [torch.ones(b, 1, dtype=torch.bool, device=c_noise.device)]
        for name, linear in self.tokens.items():
            if name in cond:
                mask = cond.get(f"{name}_mask")
                masks.append(torch.ones_like(cond[name][..., 0], dtype=torch.bool) if mask is None else mask.bool())
                parts.append(linear(cond[name].masked_fill(~masks[-1][..., None], 0.0)))
        return torch.cat(parts, 1), torch.cat(masks, 1)

    def beside(self, x: Tensor, cond: Cond) -> Tensor:
        """x with the image conditions as further channels."""
        cond, parts = cond or {}, [x]
        for name, k in self.images.items():
            if name in cond:
                image = cond[name].to(x.dtype)
                given = ~image.flatten(1).isnan().any(1).view(-1, *[1] * (x.dim() - 1))
                parts += [torch.where(given, image, 0.0), given.to(x.dtype).expand(-1, 1, *x.shape[2:])]
            else:
                parts.append(x.new_zeros(len(x), k + 1, *x.shape[2:]))
        return torch.cat(parts, 1) if len(parts) > 1 else x

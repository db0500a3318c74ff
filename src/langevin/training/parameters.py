"""Parameters by name: of what kind each is, and which ones a pattern means."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from torch import nn

from langevin.errors import UsageError, nearest

T = TypeVar("T")
Kind = Literal["hidden", "edge", "other"]


def kinds(network: nn.Module) -> dict[str, Kind]:
    """The kind of each parameter.

    hidden: matrices and kernels between the first and the last layer; edge: those of the first, the last and of what embeds
    conditions (the network's `ends`); other: biases, scales of norms, embeddings and whatever else is no layer's weight.
    """
    owners = dict(network.named_modules())
    ends = getattr(network, "ends", ())
    found: dict[str, Kind] = {}
    for name, parameter in network.named_parameters():
        owner = owners[name.rpartition(".")[0]]
        is_table = isinstance(owner, nn.Embedding | nn.EmbeddingBag) or "Norm" in type(owner).__name__
        if parameter.dim() < 2 or is_table or not name.endswith("weight"):
            found[name] = "other"
        else:
            found[name] = "edge" if any(fnmatchcase(name, end) for end in ends) else "hidden"
    return found


def refuse_unknown(patterns: Iterable[str], names: Iterable[str], where: str) -> None:
    """Raise UsageError for a pattern that means no parameter, with the nearest that means one."""
    names = list(names)
    parts = {".".join(name.split(".")[:k]) + ".*" for name in names for k in range(1, name.count(".") + 1)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            help = nearest(pattern, parts | set(names))
            raise UsageError(f"`{pattern}` matches no parameter", where=where, help=help)


def chosen(values: Mapping[str, T], name: str, otherwise: T) -> T:
    """The value of the last pattern that matches the name."""
    return next((value for pattern, value in reversed(list(values.items())) if fnmatchcase(name, pattern)), otherwise)


def freeze(network: nn.Module, patterns: Iterable[str]) -> None:
    """Take the parameters that match out of training: no gradient, no memory of an optimizer.

    Raises:
        UsageError: a pattern matches nothing, or nothing is left to train.
    """
    patterns, named = list(patterns), dict(network.named_parameters())
    refuse_unknown(patterns, named, "freeze")
    for name, parameter in named.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise UsageError("every parameter is frozen: nothing is left to train", where="freeze")

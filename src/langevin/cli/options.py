"""What options are made of: their types, and texts that become values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from langevin.errors import UsageError

if TYPE_CHECKING:
    from langevin.recipes.console import Console

Switch = Annotated[bool, Parameter(negative=())]
Names = Annotated[list[str] | None, Parameter(negative=())]
Counts = Annotated[list[int] | None, Parameter(negative=())]


def console(json: bool) -> "Console":
    """What a command speaks to: JSON lines, or what suits the terminal."""
    from langevin.recipes.console import Console

    return Console("json" if json else "auto")


def settings(texts: Sequence[str] | None) -> dict[str, str]:
    """`NAME=VALUE` as name -> value. Raises UsageError."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"`{text}` sets nothing", help="write NAME=VALUE, such as optimizer.lr=1e-3")
        found[name.strip()] = value
    return found


def interval(text: str | None) -> list[float] | None:
    """`LOW,HIGH` as two numbers. Raises UsageError."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"`{text}` is no interval", help="write LOW,HIGH, such as 0.3,5") from None
    return [low, high]

"""Too little memory: recognised by what allocators say, met by smaller parts.

A step that does not fit is done again in micro-batches of half the size: the same samples, the same noise, the same effective
batch, and so the same gradient up to rounding.

On many processes none may fail alone: the others would wait for what it was to send. With copies (ddp) the first steps of a
sitting are therefore rehearsed, each process for itself, and all halve where one finds no room. With shards (fsdp) not even
that is possible, for there no process computes anything for itself.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from langevin.config import TrainConfig
from langevin.errors import MemoryShortError
from langevin.training.distributed import World
from langevin.training.guard import Trouble

T = TypeVar("T")
FIRST_STEPS = 100
"""So many steps of a sitting may still find out what fits."""
REHEARSED = 3
"""So many on many processes: after the first of them the optimizer has the memory that it needs."""
MAX_HALVED = 3
_SAID = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
_ONEDNN = "could not create a primitive"  # all that oneDNN says where it finds no room for its code


class ShortEverywhereError(MemoryShortError):
    """All processes have come to this together, and rank 0 decides what becomes of the run."""


def is_shortage(error: BaseException) -> bool:
    """Whether an allocator refused, on whatever device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and (any(said in str(error) for said in _SAID) or str(error).strip() == _ONEDNN)
    )


def attempt(work: Callable[[], T]) -> T | None:
    """What `work` gives; None where memory was too short for it. Whatever it had taken is free again."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    return None


def fits_everywhere(work: Callable[[], object], world: World, *modules: nn.Module | None) -> bool:
    """Whether there is room on all processes for `work`, which each does for itself; it may leave gradients in the modules."""
    with world.travelling(*modules, last=False):
        fits = attempt(work) is not None
    _, said = world.pool(torch.zeros(0, 1), [fits], 0)
    return all(one[0] for one in said)


def in_parts(
    work: Callable[[TrainConfig], T],
    config: TrainConfig,
    state: Any,
    usual: int,
    *,
    early: bool,
    rehearse: Callable[[TrainConfig], bool] | None = None,
) -> tuple[T, list[Trouble]]:
    """What `work(config)` gives with the micro-batch that fits, and what had to be done for that.

    Args:
        work: finds a gradient with the config's micro-batch.
        state: of the run; its guard remembers what fits.
        usual: samples at once where nobody says how many.
        early: whether the size may still be halved.
        rehearse: asked before `work`, on many processes, whether it will fit on all; the size may be halved where it will not.

    Raises:
        ShortEverywhereError: it would not fit somewhere, not even in smaller parts.
        MemoryShortError: it does not fit. No step was taken: `state` is as before, and can be saved.
    """
    troubles: list[Trouble] = []
    while True:
        size = state.guard.micro_batch or config.micro_batch or usual
        now = config if state.guard.micro_batch is None else config.model_copy(update={"micro_batch": size})
        short = rehearse is not None and not rehearse(now)
        state.optimizer.zero_grad(set_to_none=True)
        if not short and (out := attempt(lambda now=now: work(now))) is not None:  # type: ignore[misc]
            return out, troubles
        state.optimizer.zero_grad(set_to_none=True)
        if not (early or short) or size <= 1 or state.guard.halved >= MAX_HALVED:
            raise (ShortEverywhereError if short else MemoryShortError)(
                f"not enough memory for {size:,} samples at once",
                where=f"step {state.step + 1}",
                help=f"--set micro_batch={size // 2}" if size > 1 else "",
            )
        state.guard.micro_batch, state.guard.halved = -(-size // 2), state.guard.halved + 1
        troubles.append(
            Trouble(
                "memory",
                f"{size:,} samples at once do not fit into memory: {state.guard.micro_batch:,} at a time from here on, the "
                f"same batch and the same result",
                {"micro_batch": state.guard.micro_batch},
            )
        )


def shrinking(work: Callable[[int], T], batch: int, what: str, say: Callable[[str], None]) -> T | None:
    """`work(batch)`, with half the batch where memory is short, down to 1; None, and a word, where 1 does not fit."""
    while True:
        if (out := attempt(lambda: work(batch))) is not None:  # noqa: B023
            return out
        if batch <= 1:
            say(f"memory     {what}: left out, not even one sample at a time fits")
            return None
        batch //= 2
        say(f"memory     {what}: {batch:,} samples at a time")

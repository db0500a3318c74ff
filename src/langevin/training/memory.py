"""Too little memory: recognised by what allocators say, met by smaller parts.

A step that does not fit is done again in micro-batches of half the size: the same samples, the same noise, the same effective
batch, and so the same gradient up to rounding.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from langevin.config import TrainConfig
from langevin.errors import MemoryShortError
from langevin.training.guard import Trouble

T = TypeVar("T")
FIRST_STEPS = 100
"""So many steps of a sitting may still find out what fits."""
MAX_HALVED = 3
_SAID = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
_ONEDNN = "could not create a primitive"  # all that oneDNN says where it finds no room for its code


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


def in_parts(
    work: Callable[[TrainConfig], T], config: TrainConfig, state: Any, usual: int, *, early: bool
) -> tuple[T, list[Trouble]]:
    """What `work(config)` gives with the micro-batch that fits, and what had to be done for that.

    Args:
        work: finds a gradient with the config's micro-batch.
        state: of the run; its guard remembers what fits.
        usual: samples at once where nobody says how many.
        early: whether the size may still be halved.

    Raises:
        MemoryShortError: it does not fit. No step was taken: `state` is as before, and can be saved.
    """
    troubles: list[Trouble] = []
    while True:
        size = state.guard.micro_batch or config.micro_batch or usual
        now = config if state.guard.micro_batch is None else config.model_copy(update={"micro_batch": size})
        if (out := attempt(lambda now=now: work(now))) is not None:  # type: ignore[misc]
            return out, troubles
        state.optimizer.zero_grad(set_to_none=True)
        if not early or size <= 1 or state.guard.halved >= MAX_HALVED:
            raise MemoryShortError(f"not enough memory for {size:,} samples at once", where=f"step {state.step + 1}")
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

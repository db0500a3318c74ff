"""What a network draws by itself while it trains, such as dropout: a function of the run's seed and the samples it sees."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from langevin.rng import generator

_STREAM = 6


@contextmanager
def chance(keys: Sequence[tuple[int, ...]], device: torch.device) -> Iterator[None]:
    """Inside the block torch's generators of the CPU and of `device` draw what the first sample's key says.

    Outside they go on as if nothing had happened. A batch in other parts draws other numbers, of the same law.
    """
    if not keys:
        yield
        return
    seed = int(generator(*keys[0][:2], 0, _STREAM).integers(1 << 63))
    drawing = [torch.default_generator]
    if device.type == "cuda":
        drawing.append(torch.cuda.default_generators[device.index or 0])
    before = [one.get_state() for one in drawing]
    try:
        for one in drawing:
            one.manual_seed(seed)
        yield
    finally:
        for one, state in zip(drawing, before, strict=True):
            one.set_state(state)

"""What makes a network's step cheaper without changing what it computes: activations that are computed again instead of kept
(Chen et al. 2016, arXiv:1604.06174), kernels that lie channels last, compiled code. Names of parameters stay as they are.
"""

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from langevin.config import TrainConfig
from langevin.errors import UsageError
from langevin.training.distributed import World, blocks

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
STEPS, MINUTES = 2000, 1.0
"""From so long a run on, a GPU gains more from compiled code than the quarter of a minute that making it takes."""


def economise(network: nn.Module, config: TrainConfig, world: World) -> None:
    """Prepare a network for training, in place, before it is spread over processes.

    `auto` compiles on CUDA alone: on a CPU it takes minutes and gives nothing; and it lays kernels channels last on CUDA in
    half precision, where products of that layout have hardware of their own. What is compiled for CUDA in a process of its
    own is replayed as CUDA graphs: small networks wait for the host else.

    Raises:
        UsageError: a layout that shards cannot have.
    """
    on_gpu, sharded = world.device.type == "cuda", world.parallel == "fsdp"
    if config.channels_last is True and sharded:
        raise UsageError("shards cannot lie channels last", help="leave channels_last out, or take --parallel ddp")
    if config.channels_last is True or (
        config.channels_last == "auto" and on_gpu and config.precision != "float32" and not sharded
    ):
        lay_channels_last(network)
    if config.checkpoint_activations:
        for block in blocks(network):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if on_gpu and not torch.are_deterministic_algorithms_enabled():
        torch.backends.cudnn.benchmark = True
    long = (config.steps or STEPS) >= STEPS and (config.minutes or MINUTES) >= MINUTES
    if config.compile is True or (config.compile == "auto" and on_gpu and long and not config.private):
        network.compile(mode="reduce-overhead" if on_gpu and world.size == 1 else None)


def lay_channels_last(network: nn.Module) -> None:
    """Change the layout of the kernels of convolutions over 2 and 3 axes, no value of them."""
    for p in network.parameters():
        if p.dim() in _LAYOUTS:
            p.data = p.data.contiguous(memory_format=_LAYOUTS[p.dim()])

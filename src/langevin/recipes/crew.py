"""The processes of a run besides rank 0: what they do when they are called, and how rank 0 has them evaluate.

Rank 0 runs a session as a single process does. Whatever it evaluates with the averaged weights (held-out losses, previews, the
samples that figures stand on) goes batch by batch through `Crew.evaluate`, which gives each process its items and puts the
outputs together in their order: the numbers are those of one process, up to rounding.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from langevin.config import TrainConfig
from langevin.diffusion import NetworkDenoiser
from langevin.errors import DivergedError, UsageError
from langevin.recipes.signals import StoppedError
from langevin.training.distributed import DTYPES, World
from langevin.training.economy import economise
from langevin.training.memory import ShortEverywhereError
from langevin.training.parameters import freeze

if TYPE_CHECKING:
    from langevin.recipes.session import Session


def refuse_unfit(config: TrainConfig, world: World, found: int | None = None) -> None:
    """Raise UsageError for a run that cannot be spread over so many processes.

    Args:
        found: the micro-batch, where an earlier sitting had to find out what fits.
    """
    batch, parts, micro = config.batch or 1, world.size, found or config.micro_batch
    if parts == 1:
        return
    if config.private:
        raise UsageError("private training runs on one process", help="start it without torchrun")
    if batch < parts:
        raise UsageError(
            f"a batch of {batch} for {parts} processes", help=f"--set batch={parts} or more, or fewer processes"
        )
    counts = {-(-n // (micro or n)) for n in (batch // parts, -(-batch // parts))}
    if world.parallel == "fsdp" and len(counts) > 1:
        raise UsageError(
            f"a batch of {batch} in micro-batches of {micro} is cut differently on {parts} processes",
            help=f"a batch that is a multiple of {parts}, or --parallel ddp",
        )


def spread(denoiser: NetworkDenoiser, config: TrainConfig, world: World) -> NetworkDenoiser:
    """What is trained: the denoiser's network, which is prepared in place, on all processes, beginning with rank 0's weights."""
    network = denoiser.network
    if world.size > 1:
        network.load_state_dict(world.share_tensors(network.state_dict))
    freeze(network, config.freeze)
    economise(network, config, world)
    world.shard(network)
    return NetworkDenoiser(world.copies(network), denoiser.process, denoiser.parametrization)


class Crew:
    """All processes, evaluating one network.

    Args:
        network: a copy of the run's on each process; on rank 0 its `forward` is spread from here on, where no gradient is asked.
    """

    def __init__(self, world: World, network: nn.Module) -> None:
        self.world, self.network, self.stale = world, network, True
        self._alone = network.forward
        if world.size > 1 and world.is_main:
            network.forward = self.evaluate  # type: ignore[method-assign]

    def evaluate(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """The network's output for a batch; rank 0 calls it. `stale` says that its weights are not yet the others'."""
        if len(x) < self.world.size or torch.is_grad_enabled():
            return self._alone(x, c_noise, cond)  # type: ignore[no-any-return]
        if self.stale:
            self.world.call("use")
            self.world.share_tensors(self.network.state_dict)
            self.stale = False
        given = {"x": x, "c_noise": c_noise.expand(len(x)), **{f"cond.{k}": v for k, v in (cond or {}).items()}}
        table = [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in given.items()]
        said = torch.frombuffer(bytearray(json.dumps([table, cond is not None]).encode()), dtype=torch.uint8)
        self.world.call("evaluate", len(said))
        dist.broadcast(said, 0)
        for value in given.values():
            dist.broadcast(value.to(self.world.device).contiguous(), 0)
        return self._share(given, cond is not None)

    def take_part(self, length: int) -> None:
        """What the other processes do meanwhile."""
        said = torch.empty(length, dtype=torch.uint8)
        dist.broadcast(said, 0)
        table, conditioned = json.loads(said.numpy().tobytes())
        given = {k: torch.empty(shape, dtype=DTYPES[dtype], device=self.world.device) for k, shape, dtype in table}
        for value in given.values():
            dist.broadcast(value, 0)
        with torch.no_grad():
            self._share(given, conditioned)

    def take_weights(self) -> None:
        """The other processes take on rank 0's."""
        self.network.load_state_dict(self.world.share_tensors(dict))

    def _share(self, given: Mapping[str, Tensor], conditioned: bool) -> Tensor:
        count, mine = len(given["x"]), self.world.part(len(given["x"]))
        cond = {k.removeprefix("cond."): v[mine] for k, v in given.items() if k.startswith("cond.")}
        out: Tensor = self._alone(given["x"][mine], given["c_noise"][mine], cond if conditioned else None)
        most = -(-count // self.world.size)
        padded = out.new_zeros(most, *out.shape[1:])
        padded[: len(out)] = out
        every = [torch.empty_like(padded) for _ in range(self.world.size)]
        dist.all_gather(every, padded)
        return torch.cat([one[: n.stop - n.start] for one, n in zip(every, self.world.parts(count), strict=True)])


@contextmanager
def leading(world: World) -> Iterator[None]:
    """Around rank 0's session: when it ends, in whatever way but a failure, the others are called to leave."""
    try:
        yield
    except StoppedError as error:
        world.call("leave", error.exit_code)
        raise
    world.call("leave", 0)


def follow(session: "Session") -> int:
    """Do what rank 0 calls for, until it says to leave; the exit code."""
    world, state = session.world, session.state
    steps: Iterator[Any] | None = None
    while True:
        what, (first, second, _) = world.hear()
        if what == "leave":
            return int(first)
        if what == "step":
            state.elapsed, state.began = first, second
            steps = steps or session.steps()
            try:
                next(steps)
            except (DivergedError, ShortEverywhereError):  # rank 0 has it too, and decides
                steps = None
        elif what == "evaluate":
            session.crew.take_part(int(first))
        elif what == "use":
            session.crew.take_weights()
        elif what == "average":
            state.average_of(list(state.averages)[int(first)])
        elif what == "weights":
            state.weights()
        elif what == "tensors":
            state.tensors()
        else:
            steps = None  # what it had begun with is no more
            {"load": lambda: state.load({}), "take": lambda: state.restore({}, {}), "numbers": session.hear_numbers}[
                what
            ]()

"""One run on many processes, over many hosts. A single process is a world of one, in which nothing here does anything.

    torchrun --nproc-per-node 8 -m langevin train photos/ --parallel fsdp

Rank 0 leads: it runs what a single process runs, and calls the others to their part, which is a step, a share of an evaluation,
the shards of what is written. They write nothing, say nothing and decide nothing, but that they fail or are asked to stop.

Each rank takes its part of every batch; order, times, noise and dropped conditions are those of the whole batch. Its loss is
the sum over its part divided by the size of the batch, so that the gradient is the mean over the batch, whatever the parts
are. What a step depends on is the same on all ranks: losses are put together in the order of the batch, the gradient's norm
is that of all of it, the clock is rank 0's. Weights are copied to every rank (ddp) or cut into shards (fsdp: Zhao et al. 2023,
arXiv:2304.11277). Nothing is pickled: numbers go as JSON, tensors as they are.
"""

import inspect
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from langevin.errors import LangevinError, UsageError
from langevin.training.heartbeat import Heartbeat

T = TypeVar("T")
Parallel = Literal["ddp", "fsdp"]
Call = Literal["step", "average", "weights", "tensors", "take", "load", "numbers", "use", "evaluate", "leave"]
CALLS: tuple[Call, ...] = get_args(Call)
PATIENCE = timedelta(minutes=60)
"""So long a collective waits; who is dead is found much earlier, by the heartbeat."""
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
DTYPES |= {str(d).removeprefix("torch."): d for d in (torch.int64, torch.int32, torch.uint8, torch.bool)}


@dataclass(frozen=True, eq=False)
class World:
    """All processes of a run, seen from one of them.

    Attributes:
        rank: which this is, 0 to size - 1; 0 writes and speaks.
        size: how many there are.
        device: where this one computes.
        parallel: how weights are spread; None in a world of one.
        heartbeat: None in a world of one.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    parallel: Parallel | None = None
    heartbeat: Heartbeat | None = None
    _store: Any = None
    _count: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def parts(self, count: int) -> list[slice]:
        """Which of `count` things are each rank's."""
        return [slice(r * count // self.size, (r + 1) * count // self.size) for r in range(self.size)]

    def part(self, count: int) -> slice:
        """Which of them are this rank's."""
        return self.parts(count)[self.rank]

    def advise(self, command: str) -> None:
        """What to do where a process fails."""
        if self.heartbeat is not None:
            self.heartbeat.advice = command

    def under(self, parallel: Parallel | None) -> "World":
        """The same processes, with weights spread over them so; ddp where nothing is said."""
        return replace(self, parallel=(parallel or "ddp") if self.size > 1 else None)

    def shard(self, module: nn.Module) -> None:
        """Under fsdp, cut the parameters of a module over the ranks, in place; its names stay."""
        if self.parallel == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            warnings.filterwarnings(
                "ignore", "FSDP2-wrapped module .* returned a view", UserWarning
            )  # nobody changes it
            mesh = init_device_mesh(self.device.type, (self.size,))
            for block in blocks(module):
                fully_shard(block, mesh=mesh)
            fully_shard(module, mesh=mesh)

    def copies(self, network: nn.Module) -> nn.Module:
        """What to call in training in the network's place: under ddp a module that averages gradients, else itself."""
        if self.parallel != "ddp":
            return network
        from torch.nn.parallel import DistributedDataParallel

        known = inspect.signature(DistributedDataParallel).parameters
        no_buffers = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
        # of a 1x1 kernel strides say nothing
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        return DistributedDataParallel(network, gradient_as_bucket_view=True, **no_buffers)

    @contextmanager
    def travelling(self, *modules: nn.Module | None, last: bool) -> Iterator[None]:
        """Around forward and backward of a micro-batch: gradients travel with the last one alone."""
        with ExitStack() as stack:
            for part in (part for m in modules if self.size > 1 and m is not None for part in m.modules()):
                if hasattr(part, "set_requires_gradient_sync"):
                    part.set_requires_gradient_sync(last, recurse=False)
                elif hasattr(part, "no_sync") and not last:
                    stack.enter_context(part.no_sync())
            yield

    def mean_gradients(self, module: nn.Module | None) -> None:
        """Under ddp, average the gradients of a small module that is called as it is."""
        if self.parallel == "ddp" and module is not None:
            for p in module.parameters():
                if p.grad is not None:
                    dist.all_reduce(p.grad)
                    p.grad /= self.size

    def pool(self, rows: Tensor, numbers: Iterable[float], total: int) -> tuple[Tensor, list[list[float]]]:
        """The one collective of a step.

        Args:
            rows: (n, k), k numbers of each item of this rank's part of `total` items.
            numbers: what else each rank has to say.

        Returns:
            (total, k) rows of all ranks in order, float64, and the numbers of each rank.
        """
        numbers = list(numbers)
        if self.size == 1:
            return rows.double(), [numbers]
        most, columns = -(-total // self.size), rows.shape[1]
        mine = torch.zeros(most * columns + len(numbers), dtype=torch.float64, device=self.device)
        mine[: rows.numel()] = rows.detach().double().flatten()
        mine[most * columns :] = torch.tensor(numbers, dtype=torch.float64)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(every, mine)
        counts = [part.stop - part.start for part in self.parts(total)]
        found = [one[: n * columns].view(n, columns) for one, n in zip(every, counts, strict=True)]
        return torch.cat(found), [one[most * columns :].tolist() for one in every]

    def call(self, what: Call, *numbers: float) -> None:
        """Rank 0: say what all do next, with up to three numbers. The others learn it from `hear`."""
        if self.size > 1 and self.is_main:
            said = [CALLS.index(what), *numbers]
            dist.broadcast(torch.tensor(said + [0.0] * (4 - len(said)), dtype=torch.float64), 0)

    def hear(self) -> tuple[Call, list[float]]:
        """The other ranks: what rank 0 says next."""
        said = torch.zeros(4, dtype=torch.float64)
        dist.broadcast(said, 0)
        return CALLS[int(said[0])], said[1:].tolist()

    def share(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, a JSON value, on all ranks; however long it takes."""
        if self.size == 1:
            return make()
        key = f"shared/{next(self._count)}"
        if self.is_main:
            made = make()
            self._store.set(key, json.dumps(made))
            return made
        self._wait(key)
        return json.loads(self._store.get(key))  # type: ignore[no-any-return]

    def each(self, own: T) -> list[T]:
        """What every rank has to say, JSON values in the order of ranks, on all of them."""
        if self.size == 1:
            return [own]
        count = next(self._count)
        keys = [f"said/{count}/{rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], json.dumps(own))
        for key in keys:
            self._wait(key)
        return [json.loads(self._store.get(key)) for key in keys]

    def share_tensors(self, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors by name that rank 0 has, on the CPU of all ranks."""
        if self.size == 1:
            return dict(make())
        mine = {k: v.cpu().contiguous() for k, v in make().items()} if self.is_main else {}
        table = self.share(lambda: [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in mine.items()])
        found = {}
        for name, shape, dtype in table:
            found[name] = mine[name] if self.is_main else torch.empty(shape, dtype=DTYPES[dtype])
            dist.broadcast(found[name], 0)
        return found

    def first_on_host(self, make: Callable[[], T]) -> T:
        """What `make` gives, on every rank; the first rank of each host goes first, the others find what it left."""
        if self.size == 1:
            return make()
        key = f"first/{next(self._count)}/{os.environ.get('GROUP_RANK', '')}/{host()}"
        is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
        if not is_first:
            self._wait(key)
        made = make()
        if is_first:
            self._store.set(key, "1")
        return made

    def _wait(self, key: str) -> None:
        while not self._store.check([key]):
            time.sleep(0.05)


ALONE = World()
"""A world of one, on the CPU."""


def blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks that a network is made of: what stands in its lists and has parts of its own."""
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList)]
    inside = [child for one in lists for child in one if not isinstance(child, nn.ModuleList)]
    return [block for block in inside if next(block.children(), None) is not None]


def is_shard(tensor: Tensor) -> bool:
    """Whether it is cut over the ranks."""
    return hasattr(tensor, "full_tensor")


def full(tensors: Mapping[str, Tensor], *, everywhere: bool = False) -> dict[str, Tensor]:
    """Tensors by name with shards put together, one at a time; all ranks have to call it.

    Shards come to the CPU of rank 0, and other ranks keep nothing of them, or, with `everywhere`, to the device of all.
    """
    found = {}
    for name, tensor in tensors.items():
        if is_shard(tensor):
            whole: Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
            if not everywhere and dist.get_rank():
                continue
            tensor = whole if everywhere else whole.cpu()
        found[name] = tensor
    return found


def like(own: Tensor, whole: Tensor) -> Tensor:
    """The whole tensor in the form of one's own: on its device, in its layout, cut as it is cut."""
    if is_shard(own):
        from torch.distributed.tensor import distribute_tensor

        there = whole.to(own.device, own.dtype)
        return distribute_tensor(there, own.device_mesh, own.placements, src_data_rank=None)  # type: ignore[attr-defined]
    return torch.empty_like(own, requires_grad=False).copy_(whole) if own.shape == whole.shape else whole.to(own.device)


def here(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor; changed in place, it is changed."""
    return tensor.to_local() if is_shard(tensor) else tensor  # type: ignore[attr-defined,no-any-return]


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """What this rank has of the gradients; changed in place, they are changed."""
    return [here(p.grad) for p in parameters if p.grad is not None]


def total_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Norm of the gradient of all parameters, shards or all of them none."""
    parameters = list(parameters)
    if not any(is_shard(p) for p in parameters):
        return torch.nn.utils.get_total_norm(gradients(parameters))
    square = torch.stack([g.square().sum() for g in gradients(parameters)]).sum()
    dist.all_reduce(square)
    return square.sqrt()


@contextmanager
def join(kind: str) -> Iterator[World]:
    """The world that the environment tells of (torchrun sets RANK, WORLD_SIZE, MASTER_ADDR, ...), inside the block.

    Args:
        kind: "cpu" (gloo) or "cuda" (nccl, and gloo for what lies on the CPU); the device is that of LOCAL_RANK.

    Raises:
        UsageError: part of the environment is missing, or there are more processes on this host than devices.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=torch.device(kind))
        return
    if missing := [k for k in ("RANK", "MASTER_ADDR", "MASTER_PORT") if k not in os.environ]:
        raise UsageError(f"WORLD_SIZE is set, but not {', '.join(missing)}", help="start it with torchrun")
    rank, device = int(os.environ["RANK"]), torch.device(kind)
    if kind == "cuda":
        local = int(os.environ.get("LOCAL_RANK", rank % torch.cuda.device_count()))
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"rank {rank} is the {local + 1}th on this host, which has {torch.cuda.device_count()} GPUs",
                help="one process a GPU: a smaller --nproc-per-node",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    keeps = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = _client(keeps)
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    group = dist.PrefixStore("group", store)
    at = {"device_id": device} if kind == "cuda" else {}
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=PATIENCE, **at)
    heartbeat = Heartbeat(_client(False), rank, size)
    try:
        yield World(rank, size, device, "ddp", heartbeat, store)
    except BaseException as error:
        _tell(heartbeat, error)
        raise
    heartbeat.stop()
    dist.destroy_process_group()


def _tell(heartbeat: Heartbeat, error: BaseException) -> None:
    """Tell the others of an error of this rank. Ends the process in silence where another rank has said the same."""
    if isinstance(error, RuntimeError) and _is_lost(error):
        heartbeat.await_verdict()
    code = error.exit_code if isinstance(error, LangevinError) else error.code if isinstance(error, SystemExit) else 1
    if code in (0, 75, 130):  # rank 0 has called all others to leave
        heartbeat.stop(code or 0)
        dist.destroy_process_group()
    elif not heartbeat.fail(f"{error}" if code != 1 else f"{type(error).__name__}: {error}", int(code or 1)):
        raise SystemExit(code) from None


def _is_lost(error: RuntimeError) -> bool:
    """Whether a collective failed, which is another rank's doing."""
    lost = ("gloo", "nccl", "connection", "socket", "broken pipe", "timed out")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in lost)


def _client(keeps: bool) -> Any:
    """A client of the store at MASTER_ADDR; the process that keeps it serves it too. Keys are this attempt's own."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=keeps, timeout=timedelta(minutes=10), multi_tenant=keeps)
    return dist.PrefixStore(f"langevin/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def host() -> str:
    """What this machine is called."""
    import platform

    return platform.node()

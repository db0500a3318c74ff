"""What a training step and a sampler's step cost on a GPU.

    python benchmarks/gpu.py [--widths 64,128 128,256 256,512] [--batches 128 512] [--side 32] [--modes eager compiled graphs]
    python benchmarks/gpu.py --waits

First the ceilings of this GPU: a product of two bfloat16 matrices of 8192 x 8192, and a 3x3 convolution of 256 channels, forward
and backward. Then steps of `fit` as a run takes them (data, keyed noise, bfloat16 products with float32 weights, clipping,
fused AdamW, averages, checks of every number), on random colour pictures: milliseconds a step by the clock of the host, the share
of it in which the GPU computes, pictures a second, and floating point operations a second (torch.utils.flop_counter, forward and
backward) as a share of the product's. `eager` compiles nothing, `compiled` the network, `graphs` replays it as CUDA graphs too.

With --waits: which solvers make the host wait for the GPU inside their loop, as torch's own detector finds it. Prints markdown.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from langevin import data
from langevin.config import parse
from langevin.diffusion import NetworkDenoiser
from langevin.diffusion.loss import denoising_loss
from langevin.diffusion.weights import Weight
from langevin.model import Model
from langevin.recipes import plan
from langevin.recipes.solver_oracles import registered
from langevin.registry import build
from langevin.rng import keyed
from langevin.solvers import trajectory
from langevin.training import TrainState, fit
from langevin.training.distributed import World
from langevin.training.economy import lay_channels_last

CUDA = torch.device("cuda", 0)
WARM, STEPS = 12, 60


def seconds(work: Callable[[], object], rounds: int = 20) -> float:
    """Median by the GPU's own clock."""
    for _ in range(3):
        work()
    took = []
    for _ in range(rounds):
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        work()
        ended.record()
        ended.synchronize()
        took.append(begun.elapsed_time(ended) / 1e3)
    return statistics.median(took)


def product(n: int = 8192) -> float:
    """FLOP/s."""
    a, b = torch.randn(2, n, n, device=CUDA, dtype=torch.bfloat16)
    return 2 * n**3 / seconds(lambda: a @ b)


def convolution(batch: int = 512, channels: int = 256, side: int = 16) -> float:
    """FLOP/s, forward and backward."""
    x = torch.randn(batch, channels, side, side, device=CUDA, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(channels, channels, 3, 3, device=CUDA, dtype=torch.bfloat16)
    w = w.contiguous(memory_format=torch.channels_last).requires_grad_()
    g = torch.randn_like(x)

    def work() -> None:
        x.grad = w.grad = None
        F.conv2d(x, w, padding=1).backward(g)

    return 3 * 2 * batch * channels**2 * 9 * side**2 / seconds(work)


def run(pictures: Path, widths: list[int], batch: int, mode: str) -> dict[str, float]:
    dataset = data.open(pictures)
    given = {"data": {"path": str(pictures)}, "steps": 10**6, "batch": batch, "compile": False, "precision": "bfloat16"}
    network = {"widths": widths, "attention": [len(widths) - 1], "channels": 3, "dims": 2, "patch": 2}
    config = plan.resolve(parse(given | {"network": {"name": "unet", **network}}), dataset)
    model = plan.make(config, dataset).to(CUDA)
    net = model.denoiser.network
    lay_channels_last(net)
    state = TrainState.start(net, config)
    feed = plan.feed(config, dataset, model.codec, state, World(device=CUDA))
    work = flops(model, feed.at(0).x0, build(dict(config.weight or {}), Weight), feed.at(0).u)
    if mode != "eager":
        net.compile(mode="reduce-overhead" if mode == "graphs" else None)
    steps = fit(model.denoiser, feed, config, state)
    torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    for _ in range(WARM):
        next(steps)
    torch.cuda.synchronize()
    warm, took = time.perf_counter() - begun, []
    for _ in range(STEPS):
        begun = time.perf_counter()
        next(steps)
        took.append(time.perf_counter() - begun)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        for _ in range(10):
            next(steps)
        torch.cuda.synchronize()
    kernels = [e for e in seen.key_averages() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    busy = sum(kernel.self_device_time_total for kernel in kernels) / 10 / 1e6
    table = seen.key_averages().table(sort_by="self_device_time_total", row_limit=14, max_name_column_width=60)
    pictures.with_name(f"{mode}-{batch}-{'-'.join(map(str, widths))}.txt").write_text(table)
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "flops": work,
        "seconds": statistics.median(took),
        "busy": busy,
        "warm": warm,
        "memory": torch.cuda.max_memory_allocated(),
    }


def flops(model: Model, x0: Tensor, weight: Weight, u: Tensor) -> int:
    denoiser: NetworkDenoiser = model.denoiser
    with FlopCounterMode(display=False) as counter, torch.autocast("cuda", torch.bfloat16):
        denoising_loss(denoiser, x0, u, torch.randn_like, weight).mean().backward()
    denoiser.network.zero_grad()
    return counter.get_total_flops()


def waits(pictures: Path) -> Iterator[tuple[str, str]]:
    """(solver, where its loop waits, or nothing)."""
    dataset = data.open(pictures)
    model = plan.make(plan.resolve(parse({"data": {"path": str(pictures)}, "steps": 1}), dataset), dataset).to(CUDA)
    denoiser, seeds = model.denoiser.eval(), range(8)
    x = denoiser.process.prior((8, *model.shape), keyed(seeds)(0), device=CUDA)
    for name, solver in registered().items():
        times = model.grid()(denoiser.process.schedule, 8)
        torch.cuda.synchronize()
        try:
            steps = trajectory(denoiser, solver, x, times, noise=keyed(seeds))
            next(steps)
            torch.cuda.set_sync_debug_mode("error")
            for _ in steps:
                pass
            found = ""
        except Exception as error:
            found = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
        yield name, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="+", default=["64,128", "128,256", "256,512"])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled", "graphs"])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--waits", action="store_true")
    parser.add_argument("--kernels", type=Path, help="folder for a list of the kernels of each")
    given = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures.npy")
        rng = np.random.default_rng(0)
        np.save(pictures, rng.integers(0, 256, (4096, given.side, given.side, 3), np.uint8))
        if given.waits:
            print("| solver | waits |\n|---|---|")
            for name, found in waits(pictures):
                print(f"| {name} | {found} |", flush=True)
            return
        peak = product()
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        print(f"\nproduct {peak / 1e12:.0f} TFLOP/s, convolution {convolution() / 1e12:.0f} TFLOP/s\n")
        titles = "widths | batch | mode | parameters | ms / step | GPU busy | pictures / s | TFLOP/s | of the product"
        print(f"| {titles} | ready after s | GiB |\n{'|---' * 11}|")
        for widths in given.widths:
            for batch in given.batches:
                for mode in given.modes:
                    torch._dynamo.reset()
                    torch.cuda.empty_cache()
                    try:
                        r = run(pictures, [int(w) for w in widths.split(",")], batch, mode)
                    except Exception as error:
                        print(
                            f"| {widths} | {batch} | {mode} | {type(error).__name__}: {str(error)[:200]} |", flush=True
                        )
                        continue
                    rate = r["flops"] / r["seconds"]
                    print(
                        f"| {widths} | {batch} | {mode} | {r['parameters'] / 1e6:.1f} M | {1e3 * r['seconds']:.2f} | "
                        f"{r['busy'] / r['seconds']:.0%} | {batch / r['seconds']:,.0f} | {rate / 1e12:.0f} | {rate / peak:.1%} | "
                        f"{r['warm']:.1f} | {r['memory'] / 2**30:.1f} |",
                        flush=True,
                    )
        if given.kernels:
            for file in pictures.parent.glob("*.txt"):
                (given.kernels / file.name).write_text(file.read_text())


if __name__ == "__main__":
    main()

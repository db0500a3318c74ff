"""Training steps side by side: forward + backward + AdamW + EMA of this U-Net and of others' at equal parameters.

    python benchmarks/throughput.py [--rounds 7] [--batch 64] [--size 28] [--channels 1] [--threads 2] [--memory]

Prints markdown. Every network is paired with ours at the same number of parameters: theirs at the size that is usual for
small pictures (32/64/128 channels) against ours widened or narrowed to match, and ours at its default size against theirs
narrowed to match. A pair runs in turn in one process, step about, and the medians count. FLOPs are those that
torch.utils.flop_counter counts (it does not count fused attention on the CPU, in anybody's network). All use the same
fused AdamW and one-call EMA and have glibc kept from returning memory, which is no worse for any of them.

The ceiling is a 3x3 convolution, forward + backward, in the same process, over the shapes such networks have, contiguous
and channels last: the best shape's rate. The table also gives the median over the shapes. With one thread time is the
processor time of the process, which other work on the machine disturbs little; else it is wall clock, and the quickest
round ("best") beside the median tells how disturbed the machine was. A share of the ceiling compares like with like.
Peak memory is taken in a fresh process for each network: the peak of resident memory after four steps less the peak
after the imports.
"""

import argparse
import importlib.metadata
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from langevin.networks import UNet, default_size, keep_memory

warnings.filterwarnings("ignore")
Net = Callable[[Tensor, Tensor], Tensor]
NEAR = 0.02  # of the parameters wanted


def ours(size: int, channels: int, widths: tuple[int, ...]) -> nn.Module:
    return UNet(**(default_size((channels, size, size), 60_000) | {"widths": widths}))


class _Diffusers(nn.Module):
    def __init__(self, size: int, channels: int, widths: tuple[int, ...]) -> None:
        from diffusers import UNet2DModel

        super().__init__()
        down = ("DownBlock2D",) * (len(widths) - 1) + ("AttnDownBlock2D",)
        up = ("AttnUpBlock2D",) + ("UpBlock2D",) * (len(widths) - 1)
        self.net = UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=2,
            block_out_channels=widths,
            norm_num_groups=8,
            down_block_types=down,
            up_block_types=up,
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, t, return_dict=False)[0]


def lucidrains(size: int, channels: int, widths: tuple[int, ...]) -> nn.Module:
    from denoising_diffusion_pytorch import Unet

    return Unet(dim=widths[0], dim_mults=tuple(w // widths[0] for w in widths), channels=channels)


class _Azula(nn.Module):
    def __init__(self, size: int, channels: int, widths: tuple[int, ...], mod: int = 128) -> None:
        from azula.nn.unet import UNet

        super().__init__()
        self.embed = nn.Sequential(nn.Linear(64, mod), nn.SiLU(), nn.Linear(mod, mod))
        self.net = UNet(channels, channels, hid_channels=widths, hid_blocks=(2,) * len(widths), mod_features=mod)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(32) / 32)
        return self.net(x, self.embed(torch.cat([angle.sin(), angle.cos()], 1)))


USUAL = (32, 64, 128)
MAKERS = {"langevin": ours, "diffusers": _Diffusers, "lucidrains": lucidrains, "azula": _Azula}
PACKAGES = {"diffusers": "diffusers", "lucidrains": "denoising-diffusion-pytorch", "azula": "azula"}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def matched(name: str, size: int, channels: int, like: tuple[int, ...], wanted: int) -> tuple[int, ...]:
    """Widths in nearly the proportions of `like`, multiples of 8, that give the wanted number of parameters."""

    def params(widths: tuple[int, ...]) -> int:
        with torch.device("meta"):
            return count(MAKERS[name](size, channels, widths))

    scale, found = math.sqrt(wanted / params(like)), []
    if name == "lucidrains":  # whole multiples of the first width
        first = round(like[0] * scale)
        tried = [tuple(n * (w // like[0]) for w in like) for n in range(first - 4, first + 5) if n % 2 == 0]
    else:
        around = [[max(1, round(w * scale / 8) + d) * 8 for d in (-1, 0, 1)] for w in like]
        tried = [w for w in product(*around) if name != "langevin" or w[-1] % max(1, w[-1] // 64) == 0]
    for widths in tried:
        bend = max(abs(math.log(w / (v * scale))) for w, v in zip(widths, like, strict=True))
        found.append((abs(params(widths) / wanted - 1), bend, widths))
    near = [f for f in found if f[0] < NEAR] or [min(found)]
    return min(near, key=lambda f: f[1])[2]


def now() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Job:
    """A network in training on fixed random pictures."""

    def __init__(self, name: str, size: int, channels: int, widths: tuple[int, ...], batch: int) -> None:
        torch.manual_seed(0)
        self.name, self.widths, self.batch = name, widths, batch
        self.net = MAKERS[name](size, channels, widths)
        self.params = [p for p in self.net.parameters() if p.requires_grad]
        self.ema = [p.detach().clone() for p in self.params]
        self.optimizer = torch.optim.AdamW(self.params, lr=1e-4, fused=True)
        self.x, self.noise = torch.randn(2, batch, channels, size, size)
        self.t = torch.randint(0, 1000, (batch,)) if name != "langevin" else torch.randn(batch)
        self.seconds: list[float] = []

    def step(self) -> None:
        (self.net(self.x + self.noise, self.t) - self.noise).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        torch._foreach_lerp_(self.ema, self.params, 0.001)

    def timed(self) -> None:
        start = now()
        self.step()
        self.seconds.append(now() - start)

    def flops(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self.step()
        return counter.get_total_flops()


def in_turn(runs: list[Callable[[], None]], rounds: int) -> Iterator[int]:
    for r in range(rounds):
        for run in runs if r % 2 == 0 else runs[::-1]:
            run()
        yield r


class Ceiling:
    """3x3 convolutions, forward + backward."""

    shapes = ((64, 32, 28), (64, 64, 28), (64, 64, 14), (64, 128, 14), (64, 128, 7), (64, 256, 7), (16, 256, 16))

    def __init__(self) -> None:
        self.seconds: dict[tuple[tuple[int, int, int], str], list[float]] = {}

    def round(self) -> None:
        for (b, c, h), layout in product(self.shapes, ("contiguous", "channels last")):
            form = torch.contiguous_format if layout == "contiguous" else torch.channels_last
            x = torch.randn(b, c, h, h).contiguous(memory_format=form).requires_grad_()
            w = torch.randn(c, c, 3, 3).contiguous(memory_format=form).requires_grad_()
            g = torch.randn(b, c, h, h).contiguous(memory_format=form)
            for repeat in range(4):
                x.grad = w.grad = None
                start = now()
                F.conv2d(x, w, padding=1).backward(g)
                if repeat:
                    self.seconds.setdefault(((b, c, h), layout), []).append(now() - start)

    def rates(self, of: Callable[[list[float]], float]) -> dict[tuple[tuple[int, int, int], str], float]:
        work = lambda b, c, h: 3 * 2 * b * c * c * 9 * h * h / 1e9  # noqa: E731
        return {k: work(*k[0]) / of(s) for k, s in self.seconds.items()}


def peak(name: str, size: int, channels: int, widths: tuple[int, ...], batch: int, keep: bool) -> float:
    """MB over the imports, in a fresh process."""
    call = [sys.executable, __file__, "--one", json.dumps([name, size, channels, widths, batch, keep])]
    return float(subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()[-1])


def high_water() -> float:
    """Peak resident memory of this process in MB; ru_maxrss, but without what a parent had when it started this one."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def one(name: str, size: int, channels: int, widths: list[int], batch: int, keep: bool) -> None:
    MAKERS[name](size, channels, tuple(widths))  # imports whatever it needs
    before = high_water()
    if keep:
        keep_memory()
    job = Job(name, size, channels, tuple(widths), batch)
    for _ in range(4):
        job.step()
    print(high_water() - before)


def installed(name: str) -> bool:
    try:
        importlib.metadata.version(PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--memory", action="store_true", help="measure peak memory too, a process for each network")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        return one(*json.loads(args.one))
    keep_memory()
    size, channels, batch = args.size, args.channels, args.batch
    default = tuple(default_size((channels, size, size), 60_000)["widths"])
    pairs = []
    for name in PACKAGES:
        if not installed(name):
            continue
        wanted = count(MAKERS[name](size, channels, USUAL))
        pairs.append(("their usual size", name, USUAL, matched("langevin", size, channels, default, wanted)))
    for name in PACKAGES:
        if installed(name):
            wanted = count(ours(size, channels, default))
            pairs.append(("our default size", name, matched(name, size, channels, USUAL, wanted), default))

    ceiling, rows = Ceiling(), []
    for at, name, theirs, mine in pairs:
        jobs = [Job(n, size, channels, w, batch) for n, w in (("langevin", mine), (name, theirs))]
        work = [job.flops() / 1e9 for job in jobs]
        for _ in in_turn([job.timed for job in jobs], args.rounds):
            pass
        ceiling.round()
        for job, gflop in zip(jobs, work, strict=True):
            memory = (
                [peak(job.name, size, channels, job.widths, batch, k) for k in (False, True)] if args.memory else []
            )
            rows.append((at, job, gflop, memory))
    rates, quick = ceiling.rates(statistics.median), ceiling.rates(min)
    best = max(rates, key=rates.__getitem__)
    versions = [f"{n} {importlib.metadata.version(p)}" for n, p in PACKAGES.items() if installed(n)]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {', '.join(versions) or 'no peers'}; ", end=""
    )
    print(f"batch {batch}, {channels} x {size} x {size}, {args.rounds} rounds\n")
    print(f"Ceiling: median {rates[best]:.0f} GFLOP/s, 3x3 convolution {best[0]} {best[1]}; quickest round ", end="")
    print(f"{max(quick.values()):.0f}; median over shapes and layouts {statistics.median(rates.values()):.0f}.\n")
    print("| convolution f+b (batch, channels, side) | contiguous | channels last |\n|---|---|---|")
    for shape in Ceiling.shapes:
        print(f"| {shape} | {rates[shape, 'contiguous']:.0f} | {rates[shape, 'channels last']:.0f} |")
    titles = "at | network | widths | parameters | GFLOP/picture | ms/step | pictures/s | GFLOP/s | of ceiling | best GFLOP/s"
    titles += " | of best ceiling" + " | peak MB | with memory kept" * args.memory
    print(f"\n| {titles} |\n|{'---|' * (titles.count('|') + 1)}")
    for at, job, gflop, memory in rows:
        s, q = statistics.median(job.seconds), min(job.seconds)
        cells = [at, job.name, "/".join(map(str, job.widths)), f"{count(job.net) / 1e6:.2f} M", f"{gflop / batch:.3f}"]
        cells += [f"{s * 1e3:.0f}", f"{batch / s:.0f}", f"{gflop / s:.0f}", f"{gflop / s / rates[best]:.0%}"]
        cells += [f"{gflop / q:.0f}", f"{gflop / q / max(quick.values()):.0%}", *(f"{m:.0f}" for m in memory)]
        print(f"| {' | '.join(cells)} |")
    for name in PACKAGES:
        if not installed(name):
            print(f"| | {name} | not installed |")


if __name__ == "__main__":
    main()

"""One peer in the race of race.py: train until the budget is spent, then draw pictures. Needs the peers' environment.

    python benchmarks/race_peers.py diffusers --images train-images-idx3-ubyte.gz --minutes 10 --out samples.npz

Prints one line of JSON. The budget counts from --began (seconds of the epoch; this script's first line where it is not given),
so that starting Python, imports, reading the data and building the network are in it. Every peer keeps its own network, loss,
noise levels, optimizer, average and sampler. What was changed is to its advantage within minutes on a processor:

- the learning rate of all rises over the first 5 % of the budget and falls to zero as a cosine over the rest: their own
  recipes are written for days, and a constant rate, or one that warms up for 500 steps, does worse in minutes;
- rate 1e-3 for the two whose documents have 1e-4 and 8e-5 for such days;
- batches of 64 where their examples have 512 or 1,024, which would be a few dozen steps;
- no mirroring: shoes all look to one side in the data, and mirrored ones count against whoever draws them;
- no worker processes, no logging, no previews, no checkpoints; glibc keeps its memory (race.py sets that), which makes
  lucidrains' network up to 1.6 times as fast;
- --precision bfloat16 multiplies in bfloat16 while it trains, which none of their defaults does on a processor.

The peers:

- diffusers: UNet2DModel, DDPMScheduler with its defaults, AdamW and EMA as its unconditional example sets them, clipping at 1;
  DPM-Solver++(2M) in 20 steps, the fast sampler that its documents recommend.
- lucidrains: Unet, GaussianDiffusion predicting v on its sigmoid schedule, Adam, clipping and EMA of its Trainer;
  its DDIM in 25 steps.
- smalldiffusion: its Fashion-MNIST U-Net example: network, log-linear schedule from .01 to 20, AdamW at 7e-4, EMA .999 with
  warm-up, `samples` in 20 steps with gam 1.6. Dropout .1 as in the network's default.
- edm: preconditioning, loss and log-normal noise levels (-1.2, 1.2) of Karras et al. 2022 by k-diffusion's Denoiser with
  sigma_data .5, Adam at 1e-3, EMA with a half-life of 5 % of what was seen (that paper's own way to scale it to short runs),
  gradients that are not finite set to 0, Heun in 18 steps (35 evaluations) from 80 to .002. The network is of the DDPM++ kind
  (residual blocks that also resample, positional embedding of log(sigma) / 4), diffusers' at the size of the first peer.
  No dropout, no augmentation: both pay in days only.
"""

import time

FIRST = time.time()

import argparse  # noqa: E402
import copy  # noqa: E402
import gzip  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

WARM = 0.05
"""Share of the budget in which the learning rate rises."""
AT_ONCE = 250
"""Samples drawn together."""


@dataclass
class Peer:
    """What a peer trains and draws with; pictures are (B, C, H, W) in [-1, 1].

    Attributes:
        loss: of a batch, to go backward from.
        averaged: called after each step with the number of steps made.
        draw: so many pictures from the averaged weights, in so many steps.
        steps: of its sampler, where nothing else is said.
        packages: whose versions are told.
        clip: largest norm of the gradient.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor], Tensor]
    averaged: Callable[[int], None]
    draw: Callable[[int, int], Tensor]
    steps: int
    packages: tuple[str, ...]
    clip: float | None = None


@dataclass(frozen=True)
class Budget:
    """Wall clock from `began`, in seconds of the epoch."""

    began: float
    seconds: float

    def elapsed(self) -> float:
        return time.time() - self.began

    def spent(self) -> float:
        """The share of it that is gone."""
        return self.elapsed() / self.seconds


class Average:
    """A copy of a network whose weights follow it; `decay` gives the share that stays, from the number of steps made."""

    def __init__(self, network: nn.Module, decay: Callable[[int], float]) -> None:
        self.network, self.decay = copy.deepcopy(network).eval().requires_grad_(False), decay
        self.ours, self.theirs = list(self.network.parameters()), list(network.parameters())

    @torch.no_grad()
    def __call__(self, steps: int) -> None:
        torch._foreach_lerp_(self.ours, self.theirs, 1 - self.decay(steps))


def diffusers(side: int, channels: int) -> Peer:
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    net = unet2d(UNet2DModel, side, channels)
    noise = DDPMScheduler(num_train_timesteps=1000)
    ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def loss(x: Tensor) -> Tensor:
        e, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        return nn.functional.mse_loss(net(noise.add_noise(x, e, t), t).sample.float(), e)

    def draw(n: int, steps: int) -> Tensor:
        ema.copy_to(net.parameters())
        net.eval()
        solver = DPMSolverMultistepScheduler.from_config(noise.config)
        solver.set_timesteps(steps)
        x = torch.randn(n, channels, side, side)
        for t in solver.timesteps:
            x = solver.step(net(x, t).sample, t, x).prev_sample
        return x

    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    return Peer(net, optimizer, loss, lambda steps: ema.step(net.parameters()), draw, 20, ("diffusers",), clip=1.0)


def unet2d(kind: Callable[..., nn.Module], side: int, channels: int, **other: object) -> nn.Module:
    return kind(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=(32, 64, 128),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        **other,
    )


def lucidrains(side: int, channels: int) -> Peer:
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    net = Unet(dim=32, dim_mults=(1, 2, 4), channels=channels)
    diffusion = GaussianDiffusion(net, image_size=side, timesteps=1000, sampling_timesteps=25, objective="pred_v")
    ema = EMA(diffusion, beta=0.995, update_every=10)

    def draw(n: int, steps: int) -> Tensor:
        made = ema.ema_model.eval()
        made.sampling_timesteps = steps
        return made.sample(batch_size=n) * 2 - 1

    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-3, betas=(0.9, 0.99))
    return Peer(
        net,
        optimizer,
        lambda x: diffusion((x + 1) / 2),
        lambda steps: ema.update(),
        draw,
        25,
        ("denoising-diffusion-pytorch", "ema-pytorch"),
        clip=1.0,
    )


def smalldiffusion(side: int, channels: int) -> Peer:
    from smalldiffusion import Scaled, ScheduleLogLinear, Unet, generate_train_sample, samples

    net = Scaled(Unet)(side, channels, channels, ch=64, ch_mult=(1, 1, 2), attn_resolutions=(side // 2,))
    schedule = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
    average = Average(net, lambda steps: min(0.999, (1 + steps) / (10 + steps)))

    def loss(x: Tensor) -> Tensor:
        x0, sigma, eps, cond = generate_train_sample(x, schedule)
        return type(net).get_loss(net, x0, sigma, eps, cond=cond)

    def draw(n: int, steps: int) -> Tensor:
        *_, x = samples(average.network, schedule.sample_sigmas(steps), gam=1.6, batchsize=n)
        return x

    optimizer = torch.optim.AdamW(net.parameters(), lr=7e-4)
    return Peer(net, optimizer, loss, average, draw, 20, ("smalldiffusion",))


def edm(side: int, channels: int) -> Peer:
    import k_diffusion
    from diffusers import UNet2DModel

    net = unet2d(UNet2DModel, side, channels, downsample_type="resnet", upsample_type="resnet")
    inner = _LogSigma(net)
    denoiser = k_diffusion.Denoiser(inner, sigma_data=0.5)
    average = Average(denoiser, lambda steps: 0.5 ** (1 / (0.05 * steps)))

    def loss(x: Tensor) -> Tensor:
        sigma = (1.2 * torch.randn(len(x)) - 1.2).exp()
        return denoiser.loss(x, torch.randn_like(x), sigma).mean()

    def draw(n: int, steps: int) -> Tensor:
        sigmas = k_diffusion.sampling.get_sigmas_karras(steps, 0.002, 80.0)
        x = sigmas[0] * torch.randn(n, channels, side, side)
        return k_diffusion.sampling.sample_heun(average.network, x, sigmas, disable=True)

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    for parameter in net.parameters():
        parameter.register_hook(lambda g: torch.nan_to_num(g, nan=0.0, posinf=1e5, neginf=-1e5))
    return Peer(net, optimizer, loss, average, draw, 18, ("k-diffusion", "diffusers"))


class _LogSigma(nn.Module):
    """diffusers' U-Net told of log(sigma) / 4."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.net(x, sigma.log() / 4).sample


PEERS = {peer.__name__: peer for peer in (diffusers, lucidrains, smalldiffusion, edm)}


def pictures_of(path: Path) -> np.ndarray:
    """(N, H, W, C) uint8 from an array in a .npy file, or from a file in MNIST's format, gzipped or not."""
    if path.suffix == ".npy":
        images = np.load(path)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"{path}: pictures (N, H, W, C) of uint8 wanted, not {images.shape} of {images.dtype}")
        return images
    body = path.read_bytes()
    body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    if body[:4] != b"\0\0\x08\3":
        raise ValueError(f"{path}: no idx file of grey 8-bit pictures")
    return np.frombuffer(body, np.uint8, offset=16).reshape(*np.frombuffer(body, ">u4", 3, offset=4), 1)


def batches(images: np.ndarray, size: int) -> Iterator[Tensor]:
    """Epochs in random order, without end."""
    x = torch.from_numpy(images.copy()).movedim(-1, 1).contiguous()
    while True:
        for rows in torch.randperm(len(x)).split(size):
            if len(rows) == size:
                yield x[rows].float().div(127.5).sub(1)


def train(peer: Peer, feed: Iterator[Tensor], budget: Budget, precision: torch.dtype) -> int:
    """Steps made until the budget is spent."""
    steps, peak = 0, [group["lr"] for group in peer.optimizer.param_groups]
    peer.network.train()
    while (share := budget.spent()) < 1:
        rate = min(1.0, share / WARM) * 0.5 * (1 + math.cos(math.pi * max(0.0, share - WARM) / (1 - WARM)))
        for group, highest in zip(peer.optimizer.param_groups, peak, strict=True):
            group["lr"] = highest * rate
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = peer.loss(next(feed))
        loss.backward()
        if peer.clip is not None:
            nn.utils.clip_grad_norm_(peer.network.parameters(), peer.clip)
        peer.optimizer.step()
        peer.optimizer.zero_grad(set_to_none=True)
        steps += 1
        peer.averaged(steps)
    return steps


@torch.no_grad()
def pictures(peer: Peer, n: int, steps: int) -> np.ndarray:
    """(n, H, W, C) uint8, without C where it is 1.

    Raises:
        FloatingPointError: values that are not finite.
    """
    x = torch.cat([peer.draw(min(AT_ONCE, n - k), steps) for k in range(0, n, AT_ONCE)]).movedim(1, -1)
    if not x.isfinite().all():
        raise FloatingPointError("samples that are not finite")
    images = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    return images[..., 0] if images.shape[-1] == 1 else images


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--images", type=Path, required=True, help="idx file or .npy array to learn from")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, help=".npz for the samples")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--steps", type=int, help="of the sampler; its own number where it is not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--began", type=float, default=FIRST, help="when the budget began, in seconds of the epoch")
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    budget = Budget(given.began, 60 * given.minutes)
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    images = pictures_of(given.images)
    peer = PEERS[given.peer](images.shape[1], images.shape[-1])
    steps = train(peer, batches(images, given.batch), budget, getattr(torch, given.precision))
    trained = budget.elapsed()
    made = pictures(peer, given.samples, given.steps or peer.steps)
    drawn = budget.elapsed()
    np.savez_compressed(given.out, images=made)
    row = {
        "parameters": sum(p.numel() for p in peer.network.parameters()),
        "steps": steps,
        "pictures": steps * given.batch,
        "train_s": round(trained, 2),
        "sample_s": round(drawn - trained, 2),
        "precision": given.precision,
        "sampler_steps": given.steps or peer.steps,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", *peer.packages)},
    }
    row["versions"]["python"] = platform.python_version()
    print(json.dumps(row))


if __name__ == "__main__":
    main()

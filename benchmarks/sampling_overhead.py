"""Time a sampling step takes outside the network, side by side.

    python benchmarks/sampling_overhead.py [--shape 16,3,32,32] [--steps 50] [--rounds 15] [--threads 2]

The network is a tensor that lies there already. All run in turn in one process, forwards and backwards by turns; the medians
over the rounds count. "per evaluation" divides by the calls of the network. Every solver in langevin is measured; other
libraries where they are installed (benchmarks/peers-requirements.txt). Prints markdown.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from langevin import rng
from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion
from langevin.diffusion.schedules import VE
from langevin.recipes.solver_oracles import registered
from langevin.solvers import trajectory
from langevin.solvers.base import Solver, levels
from langevin.solvers.grids import Karras

warnings.filterwarnings("ignore")
Run = Callable[[], tuple[float, int]]
"""One sampling: seconds and evaluations."""


class Still(Denoiser):
    """Says the same of everything."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.process, self.q, self.calls = GaussianDiffusion(VE()), Gaussian(x0), 0

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
        self.calls += 1
        return self.q if len(x_t) == len(self.q.mean) else Gaussian(x_t)


def floor(shape: tuple[int, ...], steps: int, noise: bool) -> Run:
    x0, eps = torch.randn(2, *shape)

    def run() -> tuple[float, int]:
        x = x0.clone()
        start = time.perf_counter()
        for i in range(steps):
            x.mul_(1 - 1e-4 * i).add_(torch.randn_like(x) if noise else eps, alpha=-1e-3)
        return time.perf_counter() - start, steps

    return run


def ours(solver: Solver, shape: tuple[int, ...], steps: int) -> Run:
    denoiser, x, times = Still(torch.randn(shape)), 80 * torch.randn(shape), Karras()(VE(), steps)
    lams = [at.lam for at in levels(VE(), times)]

    def run() -> tuple[float, int]:
        denoiser.calls = 0
        start = time.perf_counter()
        given = {"noise": rng.brownian(range(len(x)), lams)} if solver.stochastic else {}
        for _ in trajectory(denoiser, solver, x, times, **given):
            pass
        return time.perf_counter() - start, denoiser.calls

    return run


def diffusers(shape: tuple[int, ...], steps: int) -> dict[str, Run]:
    import diffusers as library

    library.utils.logging.set_verbosity_error()
    kinds = {
        "DDPM": ("DDPMScheduler", {}),
        "DDIM": ("DDIMScheduler", {"clip_sample": False}),
        "Euler": ("EulerDiscreteScheduler", {}),
        "Euler ancestral": ("EulerAncestralDiscreteScheduler", {}),
        "Heun": ("HeunDiscreteScheduler", {}),
        "LMS": ("LMSDiscreteScheduler", {}),
        "PNDM": ("PNDMScheduler", {}),
        "DEIS (2)": ("DEISMultistepScheduler", {}),
        "DPM-Solver++ (2M)": ("DPMSolverMultistepScheduler", {}),
        "DPM-Solver++ (3M)": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
        "UniPC (2)": ("UniPCMultistepScheduler", {}),
        "UniPC (3)": ("UniPCMultistepScheduler", {"solver_order": 3}),
    }

    def make(name: str, settings: dict[str, object]) -> Run:
        scheduler = getattr(library, name)(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **settings)
        x0, eps = torch.randn(2, *shape)

        def run() -> tuple[float, int]:
            scheduler.set_timesteps(steps)
            x = x0.clone()
            start = time.perf_counter()
            for t in scheduler.timesteps:
                x = scheduler.step(eps, t, x).prev_sample
            return time.perf_counter() - start, len(scheduler.timesteps)

        return run

    return {f"diffusers {what}": make(*kind) for what, kind in kinds.items()}


def k_diffusion(shape: tuple[int, ...], steps: int) -> dict[str, Run]:
    from k_diffusion import sampling

    def make(name: str) -> Run:
        x0, x, calls = 80 * torch.randn(shape), torch.randn(shape), []

        def model(x: Tensor, sigma: Tensor, **more: object) -> Tensor:
            calls.append(1)
            return x0

        def run() -> tuple[float, int]:
            calls.clear()
            start = time.perf_counter()
            getattr(sampling, name)(model, x, sampling.get_sigmas_karras(steps, 0.01, 80.0), disable=True)
            return time.perf_counter() - start, len(calls)

        return run

    names = ("euler", "euler_ancestral", "heun", "dpm_2", "lms", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde")
    return {f"k-diffusion {name}": make(f"sample_{name}") for name in names}


def azula(shape: tuple[int, ...], steps: int) -> dict[str, Run]:
    from azula import denoise, noise
    from azula import sample as samplers

    class Fixed(denoise.Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.x0, self.schedule, self.calls = torch.randn(shape), noise.VPSchedule(), 0

        def forward(self, x: Tensor, t: Tensor, **more: object) -> object:
            self.calls += 1
            return denoise.DiracPosterior(mean=self.x0)

    def make(name: str, **settings: object) -> Run:
        fixed, x = Fixed(), torch.randn(shape)
        sampler = getattr(samplers, name)(fixed, steps=steps, silent=True, **settings)

        def run() -> tuple[float, int]:
            fixed.calls = 0
            start = time.perf_counter()
            sampler(x)
            return time.perf_counter() - start, fixed.calls

        return run

    names = ("DDPMSampler", "DDIMSampler", "EulerSampler", "HeunSampler", "zABSampler", "vABSampler", "xEABSampler")
    return {f"azula {name.removesuffix('Sampler')}": make(name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="16,3,32,32")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    shape = tuple(int(n) for n in args.shape.split(","))
    runs = {
        "two operations in place": floor(shape, args.steps, False),
        "the same with fresh noise": floor(shape, args.steps, True),
    }
    runs |= {f"langevin {name}": ours(solver, shape, args.steps) for name, solver in registered().items()}
    for library in (diffusers, k_diffusion, azula):
        try:
            runs |= library(shape, args.steps)
        except ImportError:
            print(f"({library.__name__} is not installed)\n")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    calls: dict[str, int] = {}
    for i in range(args.rounds + 1):
        for name in list(runs) if i % 2 else reversed(runs):
            took, calls[name] = runs[name]()
            if i:  # the first round warms up
                seconds[name].append(took)
    lowest = statistics.median(seconds["two operations in place"])
    print(
        f"torch {torch.__version__}, {args.threads} threads, shape {shape}, {args.steps} steps, {args.rounds} rounds\n"
    )
    print("| | us/step | us/evaluation | over two operations |\n|---|---|---|---|")
    for name, took in seconds.items():
        middle = statistics.median(took)
        row = (1e6 * middle / args.steps, 1e6 * middle / max(calls[name], 1), middle / lowest)
        print(f"| {name} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.1f} |")


if __name__ == "__main__":
    main()

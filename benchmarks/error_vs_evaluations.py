"""Distance from the exact solution against evaluations of the denoiser, for mixtures whose denoiser is known.

    python benchmarks/error_vs_evaluations.py [--samples 2048] [--mixtures 8] [--evaluations 5 8 10] [--tune]

All start from the same noise at t = 1 of DDPM's linear schedule (sigma / alpha = 157.4) and are compared at sigma = 0 with a
fourth-order solution of 1,500 steps: mean Euclidean distance. Mixture 0 is one of two components in two dimensions; the others
are drawn, in 2 to 64 dimensions, with standard deviation .3 to 1 and components from sharp (.05 of it) to broad (.7). Peers
(diffusers, k-diffusion, azula) run where they are installed, with exact conditioning at their own noise levels. Prints
markdown: the best peer, our default, the best of our solvers, and what tuning on other starts gives (--tune).
"""

import argparse
import math
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from langevin.diffusion import GaussianDiffusion
from langevin.diffusion.schedules import Tabulated
from langevin.exact import MixtureDenoiser
from langevin.recipes.solver_oracles import registered
from langevin.solvers import Grid, Solver, trajectory
from langevin.solvers.default import default
from langevin.solvers.grids import LogSNR, Scales

SCHEDULE = Tabulated.linear()
RATIOS = torch.exp(-0.5 * SCHEDULE.log_snr((torch.arange(1000, dtype=torch.float64) + 1) / 1000))
LOW, HIGH = RATIOS[0].item(), RATIOS[-1].item()
GRIDS: dict[str, Grid] = {"scales": Scales(), "log": LogSNR(LOW, HIGH)}
Run = Callable[[int], Tensor]


def mixture(index: int) -> MixtureDenoiser:
    """Number 0 is fixed, the others are drawn."""
    process = GaussianDiffusion(SCHEDULE)
    if index == 0:
        return MixtureDenoiser(
            process,
            torch.tensor([0.35, 0.65]),
            torch.tensor([[-1, -0.5], [0.8, 1.0]]).double(),
            torch.tensor([0.15, 0.3]),
        )
    draw = torch.Generator().manual_seed(2000 + index)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=draw)

    size, num = (2, 3, 4, 8, 16, 32, 64)[(index - 1) % 7], int(uniform(2, 24).item())
    std, sharp = uniform(0.3, 1.0), torch.exp(uniform(math.log(0.05), math.log(0.7)))
    means = torch.randn(num, size, dtype=torch.float64, generator=draw)
    stds = sharp * torch.exp(uniform(-0.5, 0.5, num, 1)) * torch.ones(num, size, dtype=torch.float64)
    weights = uniform(0.3, 1, num)
    weights /= weights.sum()
    means -= weights @ means
    spread = (weights @ means.square()).mean()
    means *= torch.sqrt((1 - (weights @ stds.square()).mean()).clamp(min=0.05) / spread)
    total = torch.sqrt((weights @ (means.square() + stds.square())).mean())
    return MixtureDenoiser(process, weights, means * std / total, stds * std / total)


def starts(denoiser: MixtureDenoiser, samples: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(samples, *denoiser.means.shape[1:], dtype=torch.float64, generator=draw)


class Question:
    """E[x0] of y = x / alpha at a ratio, as peers ask for it, with the number of times it was asked."""

    def __init__(self, denoiser: MixtureDenoiser) -> None:
        self.denoiser, self.count = denoiser, 0

    def __call__(self, y: Tensor, ratio: float) -> Tensor:
        self.count += 1
        flat = y.double().reshape(len(y), -1)
        t = SCHEDULE.inverse(torch.tensor(-2 * math.log(ratio), dtype=torch.float64))
        return self.denoiser(flat * SCHEDULE.alpha(t), t).mean.reshape(y.shape).to(y.dtype)


def exact(denoiser: MixtureDenoiser, x: Tensor, num: int = 1500) -> Tensor:
    """The end of the probability flow by the classical Runge-Kutta method in log(sigma / alpha)."""
    ask, nodes = Question(denoiser), torch.linspace(math.log(HIGH), math.log(1e-5), num + 1, dtype=torch.float64)
    y, h = x * math.sqrt(1 + HIGH**2), (nodes[1] - nodes[0]).item()

    def slope(y: Tensor, log_ratio: float) -> Tensor:
        return y - ask(y, math.exp(log_ratio))

    for node in nodes[:-1].tolist():
        a = slope(y, node)
        b = slope(y + h / 2 * a, node + h / 2)
        c = slope(y + h / 2 * b, node + h / 2)
        y = y + h / 6 * (a + 2 * b + 2 * c + slope(y + h * c, node + h))
    return ask(y, 1e-5)


def ours(denoiser: MixtureDenoiser, x: Tensor) -> Iterator[tuple[str, Run]]:
    def run(solver: Solver[Any], grid: Grid, num: int) -> Tensor:
        if num % solver.evaluations:
            raise ValueError("so many evaluations do not make whole steps")
        times = grid(SCHEDULE, num // solver.evaluations)
        *_, step = trajectory(denoiser, solver, x, times)
        return step.x

    yield "default", lambda num: run(*default(num), num)
    for name, solver in registered().items():
        adaptive, few = getattr(solver, "adaptive", False), getattr(solver, "few_step", False)
        if solver.stochastic or adaptive or few or not solver.evaluations:
            continue
        for grid_name, grid in GRIDS.items():
            yield f"{name} {grid_name}", lambda num, s=solver, g=grid: run(s, g, num)


def diffusers_peers(denoiser: MixtureDenoiser, x: Tensor) -> Iterator[tuple[str, Run]]:
    if find_spec("diffusers") is None:
        return
    import diffusers

    def run(kind: Any, settings: dict[str, Any], num: int) -> Tensor:
        scheduler = kind(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **settings)
        scheduler.set_timesteps(num)
        scaled = kind is diffusers.LMSDiscreteScheduler
        ask, z = Question(denoiser), x * (math.sqrt(1 + HIGH**2) if scaled else 1)
        for t in scheduler.timesteps:
            if scheduler.step_index is None:
                scheduler._init_step_index(t)
            ratio = float(scheduler.sigmas[scheduler.step_index])
            y = z if scaled else z * math.sqrt(1 + ratio**2)
            if scaled:
                scheduler.scale_model_input(z, t)
            z = scheduler.step((y - ask(y, ratio)) / ratio, t, z).prev_sample
        return z

    kinds: list[tuple[str, Any, dict[str, Any]]] = [("LMS", diffusers.LMSDiscreteScheduler, {})]
    for order in (2, 3):
        kinds += [
            (f"UniPC{order}", diffusers.UniPCMultistepScheduler, {"solver_order": order}),
            (f"DPM++{order}M", diffusers.DPMSolverMultistepScheduler, {"solver_order": order}),
            (f"DEIS{order}", diffusers.DEISMultistepScheduler, {"solver_order": order}),
        ]
    for name, kind, settings in kinds:
        for grid in ("exponential", "karras"):
            given = {**settings, f"use_{grid}_sigmas": True}
            yield f"diffusers {name} {grid}", lambda num, k=kind, g=given: run(k, g, num)
        if name.startswith("DPM++"):
            yield f"diffusers {name} lu", lambda num, k=kind, g={**settings, "use_lu_lambdas": True}: run(k, g, num)


def k_diffusion_peers(denoiser: MixtureDenoiser, x: Tensor) -> Iterator[tuple[str, Run]]:
    if find_spec("k_diffusion") is None:
        return
    import k_diffusion.sampling as K

    def run(sampler: Any, grid: Any, num: int) -> Tensor:
        ask = Question(denoiser)
        model = lambda y, sigma, **_: ask(y, sigma[0].item())  # noqa: E731
        end: Tensor = sampler(model, x * math.sqrt(1 + HIGH**2), grid(num, LOW, HIGH).double(), disable=True)
        if ask.count != num:
            raise ValueError("not so many evaluations")
        return end

    for name in ("dpmpp_2m", "lms", "euler"):
        for grid in ("exponential", "karras"):
            chosen = (getattr(K, f"sample_{name}"), getattr(K, f"get_sigmas_{grid}"))
            yield f"k-diffusion {name} {grid}", lambda num, c=chosen: run(*c, num)


def azula_peers(denoiser: MixtureDenoiser, x: Tensor) -> Iterator[tuple[str, Run]]:
    if find_spec("azula") is None:
        return
    import azula.denoise
    import azula.noise
    import azula.sample as A

    class Noise(azula.noise.Schedule):
        def __init__(self, karras: bool) -> None:
            self.karras = karras

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            t, low = t.double(), 1e-3
            log = torch.exp(t * math.log(HIGH) + (1 - t) * math.log(low))
            ratio = (t * HIGH ** (1 / 7) + (1 - t) * low ** (1 / 7)) ** 7 if self.karras else log
            alpha = 1 / (1 + ratio.square()).sqrt()
            return alpha, ratio * alpha

    class Exact(azula.denoise.Denoiser):
        def __init__(self, karras: bool) -> None:
            super().__init__()
            self.schedule, self.ask = Noise(karras), Question(denoiser)

        def forward(self, x: Tensor, t: Tensor, **_: Any) -> Any:
            alpha, sigma = self.schedule(t)
            return azula.denoise.DiracPosterior(mean=self.ask(x / alpha, float(sigma / alpha)))

    cases = [(A.vABSampler, 2), (A.vABSampler, 3), (A.xEABSampler, 2), (A.xEABSampler, 3), (A.zABSampler, 3)]
    for kind, order in cases:
        for karras in (False, True):
            name = f"azula {kind.__name__.removesuffix('Sampler')}{order} {'karras' if karras else 'log'}"
            yield name, lambda num, k=kind, o=order, g=karras: k(Exact(g), steps=num, silent=True, order=o)(x.clone())


def tuned(denoiser: MixtureDenoiser, x: Tensor) -> Iterator[tuple[str, Run]]:
    """Tuned on other starts than those it is measured on."""
    from langevin.distillation.steps import tune_steps

    def run(num: int) -> Tensor:
        best = tune_steps(denoiser, starts(denoiser, 768, seed=1), num, batch=768)
        *_, step = trajectory(denoiser, best.solver, x, best.grid(SCHEDULE, num))
        return step.x

    yield "tuned", run


def errors(cases: Iterator[tuple[str, Run]], truth: Tensor, num: int) -> dict[str, float]:
    """Mean distance by name; what cannot run with so many evaluations, or does not end finite, is left out."""
    found = {}
    for name, run in cases:
        try:
            error = (run(num).double().reshape(truth.shape) - truth).flatten(1).norm(dim=1).mean().item()
        except (ValueError, RuntimeError, IndexError, ArithmeticError):
            continue
        if math.isfinite(error):
            found[name] = error
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--mixtures", type=int, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[5, 8, 10, 16, 20, 32, 50, 100])
    parser.add_argument("--tune", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| mixture | evaluations | best peer | | default | over peer | best of ours | | tuned | over peer |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for index in range(given.first, given.mixtures):
        denoiser = mixture(index)
        x = starts(denoiser, given.samples)
        truth, size = exact(denoiser, x), denoiser.means.shape
        for num in given.evaluations:
            peers: dict[str, float] = {}
            for cases in (diffusers_peers, k_diffusion_peers, azula_peers):
                peers |= errors(cases(denoiser, x), truth, num)
            own = errors(ours(denoiser, x), truth, num)
            best, beat = min(own, key=own.__getitem__), min(peers, key=peers.__getitem__, default="")
            line = f"| {index}: {size[0]} in {size[1]}-D | {num} "
            line += f"| {peers[beat]:.2e} | {beat} " if beat else "| | none installed "
            line += (
                f"| {own['default']:.2e} | {own['default'] / peers[beat]:.2f} "
                if beat
                else f"| {own['default']:.2e} | "
            )
            line += f"| {own[best]:.2e} | {best} "
            if given.tune and num <= 20:
                found = errors(tuned(denoiser, x), truth, num)["tuned"]
                line += f"| {found:.2e} | {found / peers[beat]:.2f} |" if beat else f"| {found:.2e} | |"
            else:
                line += "| | |"
            print(line, flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        torch.set_num_threads(1)
        main()

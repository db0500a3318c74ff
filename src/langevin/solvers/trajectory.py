"""The sampling loop. There is one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser, device_of
from langevin.rng import Noise, brownian, keyed
from langevin.solvers.base import Solver, levels

S = TypeVar("S")


@dataclass(frozen=True)
class Step(Generic[S]):
    """Where a trajectory stands after `index` steps: x (B, ...) at time t, and what its solver remembers."""

    index: int
    t: float
    x: Tensor
    state: S


def no_noise(step: int) -> Noise:
    """For deterministic solvers: a draw is a mistake."""

    def refuse(like: Tensor) -> Tensor:
        raise ValueError("this solver draws noise: give `trajectory` noise=rng.keyed(seeds), or rng.brownian")

    return refuse


@torch.no_grad()
def trajectory(
    denoiser: Denoiser,
    solver: Solver[S],
    x_t: Tensor,
    times: Tensor,
    *,
    cond: Condition | None = None,
    noise: Callable[[int], Noise] = no_noise,
    resume: Step[S] | None = None,
) -> Iterator[Step[S]]:
    """Solve from times[0] to times[-1], one `Step` after each step.

    Args:
        x_t: (B, ...) at times[0].
        times: (N + 1,) strictly decreasing, in [0, 1]; increasing ones invert, with deterministic solvers.
        noise: step index (from 1) -> Noise of that step; see `rng.keyed` and `rng.brownian`.
        resume: a step yielded earlier by the same trajectory; it goes on from there and `x_t` is not used.
    """
    times = checked(times)
    if solver.stochastic and times[0] < times[-1]:
        raise ValueError("rising times invert, which only deterministic solvers can")
    at = levels(denoiser.process.schedule, times)
    step = resume or Step(0, times[0].item(), x_t, solver.init(x_t))
    for i in range(step.index, len(times) - 1):
        x, state = solver.step(denoiser, step.x, at[i], at[i + 1], step.state, cond=cond, noise=noise(i + 1))
        step = Step(i + 1, times[i + 1].item(), x, state)
        yield step


def checked(times: Tensor) -> Tensor:
    """(N + 1,) float64 times on the CPU. Raises ValueError where no trajectory can visit them."""
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if times.ndim != 1 or len(times) < 2 or not (bool((times.diff() < 0).all()) or bool((times.diff() > 0).all())):
        raise ValueError("times must be a list of at least two numbers, strictly decreasing (or increasing: inversion)")
    if times.min() < 0 or times.max() > 1:
        raise ValueError(f"times must lie in [0, 1], not [{times.min():g}, {times.max():g}]")
    return times


def sample(
    denoiser: Denoiser,
    solver: Solver[S],
    shape: Sequence[int],
    times: Tensor,
    *,
    seeds: Sequence[int],
    cond: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(len(seeds), *shape): one sample a seed.

    The first noise is keyed (seed, 0). Steps of stochastic solvers follow a Brownian path keyed by the seed (`rng.brownian`),
    so that more steps bring the same sample nearer to where it belongs instead of giving another one.
    """
    device = device_of(denoiser)
    x = denoiser.process.prior((len(seeds), *shape), keyed(seeds)(0), dtype=dtype, device=device)
    noise: Callable[[int], Noise] = no_noise
    if solver.stochastic:
        noise = brownian(seeds, [here.lam for here in levels(denoiser.process.schedule, checked(times))])
    for step in trajectory(denoiser, solver, x, times, cond=cond, noise=noise):
        x = step.x
    return x

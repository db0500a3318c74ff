"""ParaDiGMS: Shih et al., "Parallel Sampling of Diffusion Models", 2023: K steps of DDIM at once, by Picard iteration.

The K levels of a step are guessed, x0_hat is asked for at all of them in one call, and DDIM's recursion is run with those
answers. After k rounds at least the first k levels are exact; a sample stops when none of its levels moves by more than the
tolerance, and then keeps its value: samples do not depend on each other. The result is that of K steps of DDIM.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, levels, toward

RHO, RATIO_MAX = 7.0, 80.0


@dataclass(frozen=True)
class Paradigms(Solver[Nothing]):
    """First order in the number of inner steps; fewer calls one after another than DDIM's, each of `parallel` times the batch.

    The denoiser must take any batch: a wrapper that holds values for each row of one, as measurements do, does not fit.

    Attributes:
        parallel: K, inner steps, spaced as Karras's grid.
        tolerance: largest rms of a level's last move, over a sample, in units of the level's sqrt(alpha^2 + sigma^2).
    """

    adaptive = True
    evaluations = 0

    parallel: int = 16
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.parallel < 1 or not self.tolerance >= 0:
            raise ValueError(f"parallel must be >= 1, tolerance >= 0: {self.parallel}, {self.tolerance}")

    def init(self, x_t: Tensor) -> Nothing:
        return Nothing()

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        at: Level,
        to: Level,
        state: Nothing,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, Nothing]:
        path = self.inside(denoiser, at, to)
        num, rows = len(path) - 1, len(x_t)
        times = torch.stack([here.t for here in path[:-1]]).repeat_interleave(rows).to(x_t.device)
        given = None if cond is None else {key: torch.cat([value] * num) for key, value in cond.items()}
        sizes = [math.hypot(here.alpha, here.sigma) for here in path]
        unit = torch.tensor(sizes[1:], dtype=x_t.dtype, device=x_t.device)[:, None]
        guess = torch.stack([x_t * (size / sizes[0]) for size in sizes])  # (K + 1, B, ...)
        running = torch.ones(rows, dtype=torch.bool, device=x_t.device)
        for _ in range(num):
            answers = denoiser(guess[:-1].flatten(0, 1), times, given).mean.split(rows)
            found = [x_t]
            for a, b, x0_hat in zip(path[:-1], path[1:], answers, strict=True):
                found.append(toward(found[-1], x0_hat, a, b))
            new = torch.where(running.reshape(-1, *(1,) * (x_t.ndim - 1)), torch.stack(found), guess)
            moved = (new - guess)[1:].flatten(2).square().mean(2).sqrt() / unit
            guess, running = new, running & (moved.amax(0) > self.tolerance)
            if not bool(running.any()):
                break
        return guess[-1], state

    def inside(self, denoiser: Denoiser, at: Level, to: Level) -> list[Level]:
        """The levels of the inner steps, from `at` to `to`: (sigma / alpha)^(1/7) in equal steps, from 80 where alpha is 0."""
        begin, end = (
            RATIO_MAX ** (1 / RHO) if here.alpha == 0 else (here.sigma / here.alpha) ** (1 / RHO) for here in (at, to)
        )
        ratio = torch.linspace(begin, end, self.parallel + 1, dtype=torch.float64)[1:-1] ** RHO
        return [at, *levels(denoiser.process.schedule, denoiser.process.schedule.inverse(-2 * ratio.log())), to]

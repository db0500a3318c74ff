"""How a sample comes about: what the solver holds at each step, and what the network takes the end to be by then."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langevin.model import Model
from langevin.rng import brownian, keyed
from langevin.solvers.base import levels
from langevin.solvers.trajectory import checked, no_noise, trajectory


@dataclass(frozen=True, eq=False)
class Course:
    """Items in the data's own form at every step, the start included.

    held: (N + 1, B, ...) x_t, brought to the scale of data: divided by sqrt(alpha^2 + sigma^2).
    foreseen: (N + 1, B, ...) the mean of p(x0 | x_t); at the end, the sample.
    times: (N + 1,).
    """

    held: np.ndarray
    foreseen: np.ndarray
    times: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    def some(self, count: int) -> list[int]:
        """Steps to show: the first, the last, and between them as evenly as can be."""
        return sorted({round(k) for k in np.linspace(0, self.steps, min(count, self.steps + 1))})


@torch.no_grad()
def course(
    model: Model, seeds: Sequence[int], label: "int | str | Sequence[int | str] | None" = None, steps: int | None = None
) -> Course:
    """The way of samples of these seeds, by the model's own method; the last ones are those of `model.sample`."""
    (num, solver, grid), labels = model.method(steps), model.labels(seeds, label)
    denoiser, schedule = model.guided(), model.denoiser.process.schedule
    device = next(model.denoiser.parameters()).device
    cond = None if labels is None else {"label": torch.from_numpy(labels).to(device)}
    times = checked(grid(schedule, num))
    x = model.denoiser.process.prior((len(seeds), *model.shape), keyed(seeds)(0), dtype=torch.float32, device=device)
    noise = brownian(seeds, [here.lam for here in levels(schedule, times)]) if solver.stochastic else no_noise
    held, foreseen = [], []

    def keep(x: Tensor, t: float) -> None:
        at = torch.tensor(t, dtype=torch.float64)
        scale = float((schedule.alpha(at) ** 2 + schedule.sigma(at) ** 2).sqrt())
        mean = denoiser(x, torch.full((len(x),), t, dtype=torch.float64, device=device), cond).mean if t > 0 else x
        held.append(model.codec.decode(x / scale).cpu().numpy())
        foreseen.append(model.codec.decode(mean.to(x)).cpu().numpy())

    keep(x, times[0].item())
    for step in trajectory(denoiser, solver, x, times, cond=cond, noise=noise):
        keep(step.x, step.t)
    return Course(np.stack(held), np.stack(foreseen), tuple(times.tolist()))

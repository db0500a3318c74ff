"""DPM-Solver++ (2S) for the reverse diffusion: Lu et al. 2022 (DPM-Solver++), with k-diffusion's `dpmpp_sde` split of each step.

Both stages are steps to a lower level with fresh noise on top. Their noises belong to one path: that of the first stage is the
path's move over its part of the step. (k-diffusion takes parts in sigma; the path's clock is snr.)
"""

import math
from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Nothing, Solver, combine, level_at, split, toward


@dataclass(frozen=True)
class DPMppSDE(Solver[Nothing]):
    """Second order in law, two evaluations a step (one at either end).

    Attributes:
        eta: fresh noise in each step, in units of ancestral sampling's; 0 is DPM-Solver++(2S).
        s_noise: scale of that noise; 1 is right.
        r: where the first stage ends, in shares of the step in lam.
    """

    order = 2
    evaluations = 2

    eta: float = 1.0
    s_noise: float = 1.0
    r: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.eta < math.inf and 0 <= self.s_noise < math.inf and 0 < self.r <= 1):
            raise ValueError("eta and s_noise must be finite and not negative, r must lie in (0, 1]")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

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
        x0_hat = denoiser(x_t, at.t, cond).mean
        h = to.lam - at.lam
        down, up = split(at, to, self.eta)
        z = noise(x_t) if up > 0 else None
        if math.isfinite(h):
            middle = level_at(denoiser.process.schedule, at.lam + self.r * h)
            below, over = split(at, middle, self.eta)
            x = toward(x_t, x0_hat, at, below)
            if z is not None:
                # the part of the clock e^(2 lam) that the first stage takes
                part = math.exp(-2 * (1 - self.r) * h) * math.expm1(-2 * self.r * h) / math.expm1(-2 * h)
                z_first = combine(math.sqrt(part), z, math.sqrt(1 - part), noise(x_t))
                x.add_(z_first, alpha=over * self.s_noise)
            blend = 1 / (2 * self.r)
            x0_hat = combine(1 - blend, x0_hat, blend, denoiser(x, middle.t, cond).mean)
        x_s = toward(x_t, x0_hat, at, down)
        return (x_s if z is None else x_s.add_(z, alpha=up * self.s_noise)), state

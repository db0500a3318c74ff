"""PNDM: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022, in the form called PLMS.

Steps are those of `langevin.solvers.ipndm`, but for the first, which is taken with the mean of eps_hat at both its ends
(the paper's pseudo improved Euler, eq. 11 with two stages, in place of its Runge-Kutta of four).
"""

from dataclasses import dataclass

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.rng import Noise
from langevin.solvers.base import Level, Solver, combine
from langevin.solvers.ipndm import IPNDM
from langevin.solvers.multistep import History


@dataclass(frozen=True)
class PNDM(Solver[History]):
    """One evaluation a step, two in the first; of second order, unless the steps are equal in sigma / alpha."""

    order = 2

    def init(self, x_t: Tensor) -> History:
        return ()

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        at: Level,
        to: Level,
        state: History,
        *,
        cond: Condition | None,
        noise: Noise,
    ) -> tuple[Tensor, History]:
        euler, past = IPNDM().step(denoiser, x_t, at, to, state, cond=cond, noise=noise)
        if state or not past or to.sigma == 0:
            return euler, past
        z_s = combine(1 / to.sigma, euler, -to.alpha / to.sigma, denoiser(euler, to.t, cond).mean)
        half = 0.5 * (to.sigma - to.alpha * at.sigma / at.alpha)
        return euler.add_(z_s.sub_(past[0].value, alpha=past[0].unit), alpha=half), past

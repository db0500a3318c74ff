"""DPM-Solver multistep: Lu et al., "DPM-Solver", 2022: exponential integrator on eps_hat in lam = log(alpha / sigma).

    x_s = alpha_s / alpha_t x_t - sigma_s (e^h - 1) D,   h = lam_s - lam_t
    D = (1 + 1/(2 rho)) eps_hat_t - 1/(2 rho) eps_hat_before,   rho = (lam_t - lam_before) / h       (order 2)

Order 3 is the integral of the parabola through three values; see `langevin.solvers.dpmpp` for what others take for it. On
x0_hat, that is DPM-Solver++, few steps and strong guidance are safer.
"""

from dataclasses import dataclass

from langevin.solvers.multistep import Multistep


@dataclass(frozen=True)
class DPM(Multistep):
    """One evaluation a step. order: 1 is DDIM; 2; 3."""

    variants = ({}, {"order": 3})

    predict = "eps"
    pair = "bh2"

    order: int = 2

    @property
    def terms(self) -> int:
        return self.order

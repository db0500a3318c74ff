"""DPM-Solver++ multistep: Lu et al. 2022, algorithm 2 and section 5: exponential integrator on x0_hat in lam = log(alpha / sigma).

    x_s = sigma_s / sigma_t x_t - alpha_s (e^-h - 1) D,   h = lam_s - lam_t
    D = (1 + 1/(2 rho)) x0_hat_t - 1/(2 rho) x0_hat_before,   rho = (lam_t - lam_before) / h                    (2M)

Of order 3 it is the integral of the parabola through three values (3M). The formula in use elsewhere,

    D0 + phi_2 D1 - phi_3 D2,   phi_2 = (e^-h - 1) / h + 1,   phi_3 = (e^-h - 1 + h) / h^2 - 1/2,

takes D2, the second divided difference, for the second derivative, of which it is half: that is of second order. Here its
weight is 2 phi_3.
"""

from dataclasses import dataclass

from langevin.solvers.multistep import Multistep


@dataclass(frozen=True)
class DPMpp(Multistep):
    """One evaluation a step.

    Args:
        order: 1 is DDIM, 2 is 2M, 3 is 3M.
        eta: 0 solves the probability flow, 1 the reverse diffusion (2M SDE, 3M SDE), whose law is of order 2 with either.
    """

    variants = ({}, {"order": 3}, {"eta": 1.0})

    pair = "bh2"

    order: int = 2
    eta: float = 0.0

    @property
    def terms(self) -> int:
        return self.order

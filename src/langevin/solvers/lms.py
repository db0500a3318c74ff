"""Linear multistep in sigma / alpha on eps_hat: Crowson's k-diffusion; "rho AB" of Zhang & Chen 2023, section 3.

    x_s / alpha_s = x_t / alpha_t + sum_j eps_hat_j integral of L_j(r) dr,   r = sigma / alpha

Where elsewhere the first steps lose the order, here the answers at their ends correct them; correct="never" leaves that out.
"""

from dataclasses import dataclass

from langevin.solvers.multistep import Correct, Multistep


@dataclass(frozen=True)
class LMS(Multistep):
    """One evaluation a step. order: 1 to 6."""

    predict = "eps"
    variable = "mu"

    order: int = 4
    correct: Correct = "start"

    @property
    def terms(self) -> int:
        return self.order

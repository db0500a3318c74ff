"""DEIS: Zhang & Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", 2023, eq. 14 and 15.

    x_s / alpha_s = x_t / alpha_t + sum_j eps_hat_j integral of L_j(u) d(sigma / alpha)

u = t is the paper's tAB, u = sigma / alpha ("mu") its rho AB, u = lam = log(alpha / sigma) the "log rho" that others compute.
Where elsewhere the first steps lose the order, here the answers at their ends correct them; correct="never" leaves that out.
"""

from dataclasses import dataclass

from langevin.solvers.multistep import Correct, Multistep, Variable


@dataclass(frozen=True)
class DEIS(Multistep):
    """One evaluation a step.

    Args:
        order: 1 to 6; the paper has 1 to 4.
        variable: lam, mu or t. With t alone the schedule matters, not just the noise levels.
        correct: never, start or always.
    """

    predict = "eps"

    order: int = 3
    variable: Variable = "lam"
    correct: Correct = "start"

    @property
    def terms(self) -> int:
        return self.order - (self.correct == "always" and self.order > 1)

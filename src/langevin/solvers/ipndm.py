"""iPNDM: Zhang & Chen 2023, section 3.3: Adams-Bashforth's weights of equal steps on eps_hat, whatever the steps.

    x_s / alpha_s = x_t / alpha_t + (r_s - r_t) (55 eps_hat_0 - 59 eps_hat_1 + 37 eps_hat_2 - 9 eps_hat_3) / 24,   r = sigma / alpha

with (23, -16, 5) / 12, (3, -1) / 2 and 1 in the first three steps.
"""

from dataclasses import dataclass

from langevin.solvers.multistep import Multistep


@dataclass(frozen=True)
class IPNDM(Multistep):
    """One evaluation a step; of second order, unless the steps are equal in r.

    Args:
        terms: how many answers are combined, 2 to 6.
    """

    variants = ({}, {"terms": 3})

    order = 2
    predict = "eps"
    variable = "index"
    correct = "never"

    terms: int = 4

"""SA-Solver: Xue et al., "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models", 2023, algorithm 1.

Stochastic Adams: a predictor of s answers and a corrector of s_hat, which costs no evaluation and draws no noise of its own,
on the diffusion with eta = tau^2 of `langevin.solvers.multistep`. tau = 1 reverses the forward process; the paper draws noise
between sigma / alpha = .05 and 1 alone. Of two values the authors' programme takes half differences with B(h) = h, pair="bh1",
which grow without bound in long steps; "bh2" does not, and "exact" is the paper.
"""

from dataclasses import dataclass

from langevin.solvers.multistep import Multistep, Pair


@dataclass(frozen=True)
class SASolver(Multistep):
    """One evaluation a step; with noise the law is of order 2, the samples of order 1.

    Args:
        predictor: s, 1 to 6; beyond 2 the law gains nothing.
        corrector: s_hat, the new answer counted, 2 to 6; 0 for none. 1 would leave the law first order.
        eta: tau^2.
        pair: how two values are weighed.
        noisy: noise is drawn in steps that start at a sigma / alpha between these two.
    """

    variants = ({}, {"corrector": 0}, {"noisy": (0.05, 1.0)})

    order = 2
    correct = "always"

    predictor: int = 2
    corrector: int = 3
    eta: float = 1.0
    pair: Pair = "bh2"
    noisy: tuple[float, float] = (0.0, float("inf"))

    @property
    def terms(self) -> int:
        return self.predictor

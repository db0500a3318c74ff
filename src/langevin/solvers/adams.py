"""Adams methods in each space of `langevin.solvers.multistep`, where the equations are.

correct = "never": Adams-Bashforth. "always": Adams-Moulton of this order after Adams-Bashforth of the order below, at one
evaluation a step. "start": Bashforth, with Moulton for the first steps, which have too few answers.

Many named solvers are among them: predict="eps" with variable="mu" is k-diffusion's LMS, with "lam" diffusers' DEIS, with
"index" iPNDM; "x0" with "lam" is exponential Adams; "flow" with "mu" azula's vAB.
"""

from dataclasses import dataclass

from langevin.solvers.multistep import Correct, Multistep, Predict, Variable


@dataclass(frozen=True)
class Adams(Multistep):
    """One evaluation a step.

    Args:
        order: of the method, 1 to 6: how many answers a step combines. Beyond 3 the start-up may cost part of it.
        predict: x0, eps, flow or v, the space.
        variable: lam, mu, t or index, what is interpolated in.
        correct: never, start or always.
    """

    variants = ({}, {"predict": "flow"}, {"predict": "eps", "variable": "mu"}, {"correct": "always"}, {"order": 4})

    order: int = 3
    predict: Predict = "v"
    variable: Variable = "lam"
    correct: Correct = "start"

    @property
    def terms(self) -> int:
        return self.order - (self.correct == "always" and self.order > 1)

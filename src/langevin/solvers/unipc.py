"""UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", 2023.

UniP-p combines p answers, UniC-p these and the one at the end of the step, which is there anyway. With three values or more
they are the exponential Adams-Bashforth and Adams-Moulton methods, in which B(h) cancels; of two values they take the half
difference  B(h) / 2 (m_1 - m_0) / r_1  (appendix B), where B(h) = h (bh1) or e^h - 1 (bh2) matters.
"""

from dataclasses import dataclass

from langevin.solvers.multistep import Correct, Multistep, Pair, Predict


@dataclass(frozen=True)
class UniPC(Multistep):
    """One evaluation a step; of order p + 1, and of about 4 from p = 4 on, which is what the first steps leave.

    Args:
        p: of UniPC-p, 1 to 6: how many answers the predictor combines. Others call it the order.
        pair: bh1 or bh2; "exact" takes the integral of the line instead.
        predict: x0, eps, flow or v; x0 and eps are the paper's.
        correct: "always" is UniPC, "never" UniP alone, whose first steps leave about 2.8 of order 3; "start" corrects those.
    """

    variants = ({}, {"p": 3}, {"p": 1}, {"pair": "bh1"}, {"predict": "eps"}, {"p": 3, "correct": "start"})

    p: int = 2
    pair: Pair = "bh2"
    predict: Predict = "x0"
    correct: Correct = "always"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "order", min(self.p + (self.correct == "always"), 4))

    @property
    def terms(self) -> int:
        return self.p

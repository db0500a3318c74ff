"""Several conditions at once: Liu et al., "Compositional Visual Generation with Composable Diffusion Models", 2022, eq. 11.

    x0_hat = base + sum_i weight_i (given_i - base)

A positive weight asks for a condition, a negative one pushes it away. At each noise level this is the score of
p(x) prod_i (p(x | c_i) / p(x))^weight_i, with the same reservation as for classifier-free guidance.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from langevin.diffusion import Condition, Denoiser, Gaussian, Posterior
from langevin.guidance.conditions import meet


class Composed(Denoiser):
    """A conditional denoiser that is given several conditions, each with its weight.

    Args:
        denoiser: understands a missing key as unconditional.
        terms: (condition, weight); values (1, ...) hold for the whole batch. What the caller gives as `cond` is the base, and
            a term is added to it or, key by key, takes its place.
    """

    def __init__(self, denoiser: Denoiser, terms: Sequence[tuple[Condition, float]]) -> None:
        super().__init__()
        self.denoiser, self.terms = denoiser, tuple(terms)
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Posterior:
        base = self.denoiser(x_t, t, cond).mean
        x0_hat = base
        for term, weight in self.terms:
            given = self.denoiser(x_t, t, {**(cond or {}), **(meet(term, x_t) or {})}).mean
            x0_hat = torch.add(x0_hat, given - base, alpha=weight)
        return Gaussian(x0_hat)

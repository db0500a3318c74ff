"""Tokens from a known table of probabilities p(x0), one entry for every sequence of length L. Then

    p(x0 | x_t) proportional to p(x0) prod over i of q(x_t_i | x0_i)

and what a denoiser says is its marginals. For masked diffusion they are the conditionals given the unmasked tokens.
"""

import torch
from torch import Tensor

from langevin.diffusion import Categorical, CategoricalDiffusion, Condition, Denoiser
from langevin.rng import Noise, uniform_like


class CategoricalDenoiser(Denoiser):
    """The optimal denoiser of a table; samples are (L,) tokens.

    Args:
        process: masked or uniform, of V values.
        table: (V,) * L non-negative; normalised here.

    Computes in float64 over all V^L sequences.
    """

    log_table: Tensor

    def __init__(self, process: CategoricalDiffusion, table: Tensor) -> None:
        super().__init__()
        self.process: CategoricalDiffusion = process
        table = torch.as_tensor(table).double()
        if set(table.shape) != {process.num_values} or bool((table < 0).any()) or not table.sum() > 0:
            raise ValueError(
                f"a table of {process.num_values} values has that many entries in each direction, none < 0"
            )
        self.register_buffer("log_table", (table / table.sum()).log())

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Categorical:
        evidence, joint = self.process.evidence(x_t, t), self.log_table
        length = joint.ndim
        for i in range(length):  # joint (B, V, ..., V)
            own = [1] * length
            own[i] = self.process.num_values
            joint = joint + evidence[:, i].reshape(-1, *own)
        logits = [joint.movedim(i + 1, 1).reshape(*joint.shape[:2], -1).logsumexp(2) for i in range(length)]
        return Categorical(torch.stack(logits, 1))

    def log_prob(self, x0: Tensor) -> Tensor:
        """(B,) nats, x0 (B, L)."""
        return self.log_table[tuple(x0.unbind(1))]

    def sample(self, num: int, noise: Noise) -> Tensor:
        """(num, L) int64 data."""
        below = self.log_table.exp().flatten().cumsum(0)
        u = uniform_like(noise, below.new_empty(num, 1))[:, 0].clamp(max=1 - 2.0**-53) * below[-1]
        places = torch.unravel_index(torch.searchsorted(below, u.contiguous(), right=True), self.log_table.shape)
        return torch.stack(places, 1)

"""AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; torch's own, all tensors in one pass."""

import torch
from torch.optim.optimizer import ParamsT


class AdamW(torch.optim.AdamW):
    """Args: as torch's; betas shorter than there, since runs are short."""

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)

"""How weights follow their gradient, and how fast."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from langevin.config import OptimizerConfig


def make(parameters: Mapping[str, Tensor], settings: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over parameters by name; its learning rate is set before each step."""
    return torch.optim.AdamW(
        parameters.values(), lr=0.0, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def learning_rate(progress: float, settings: OptimizerConfig) -> float:
    """Linear warm-up, then half a cosine down to 0 at the end of the budget."""
    warm = min(1.0, progress / settings.warmup) if settings.warmup else 1.0
    return settings.lr * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

"""Fewer steps for a model that is there."""

from langevin.distillation.steps import Tuned, tune_steps

__all__ = ["Tuned", "tune_steps"]

"""Training: a generator of steps, a state that is a value, checkpoints that are whole or not there."""

from langevin.training.loop import Metrics, fit
from langevin.training.state import TrainState

__all__ = ["Metrics", "TrainState", "fit"]

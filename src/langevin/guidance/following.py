"""The step that a time belongs to, for guidance whose strength is written for a step of DDIM."""

import torch
from torch import Tensor

from langevin.diffusion import Process


def following(times: Tensor, t: Tensor) -> Tensor:
    """The first of `times` (falling) below t, shaped like t, float64; the last where none is."""
    rising = times.to(t.device, torch.float64).flip(0)
    return rising[(torch.searchsorted(rising, t.double()) - 1).clamp(min=0)]


def gap(process: Process, times: Tensor, t: Tensor) -> Tensor:
    """1 - r_s / r_t with r = sigma / alpha and s the time that follows t, shaped like t, in (0, 1].

    A step of DDIM from t to s moves x by alpha_s times this for each unit of x0_hat. 1 where no time is below t.
    """
    s, t = following(times, t), t.double()
    log_ratio = 0.5 * (process.schedule.log_snr(t) - process.schedule.log_snr(s))  # log(r_s / r_t)
    return torch.where(s < t, -torch.expm1(log_ratio), 1.0)

"""Noise schedules, one a file; see base."""

from langevin.diffusion.schedules.base import Schedule
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.flow import Flow
from langevin.diffusion.schedules.scaled_linear import ScaledLinear
from langevin.diffusion.schedules.shifted import Shifted
from langevin.diffusion.schedules.sigmoid import Sigmoid
from langevin.diffusion.schedules.sub_vp import SubVP
from langevin.diffusion.schedules.tabulated import Tabulated
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp_linear import VPLinear
from langevin.diffusion.schedules.zero_terminal import ZeroTerminal, zero_terminal

__all__ = [
    "VE",
    "Cosine",
    "Flow",
    "ScaledLinear",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "SubVP",
    "Tabulated",
    "VPLinear",
    "ZeroTerminal",
    "zero_terminal",
]

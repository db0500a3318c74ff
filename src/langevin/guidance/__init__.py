"""Guidance and posterior sampling: wrappers Denoiser -> Denoiser, one a file. They stack."""

from langevin.guidance.apg import APG
from langevin.guidance.autoguidance import Autoguidance
from langevin.guidance.cfg import ClassifierFree
from langevin.guidance.cfgpp import CFGpp
from langevin.guidance.classifier import ClassifierGuidance, NoisyClassifier
from langevin.guidance.compose import Composed
from langevin.guidance.dps import DPS
from langevin.guidance.energy import Energy
from langevin.guidance.inpaint import Inpainting
from langevin.guidance.interval import Interval
from langevin.guidance.mmps import MMPS
from langevin.guidance.operators import Mask, Matrix, Operator
from langevin.guidance.pigdm import PiGDM
from langevin.guidance.threshold import Threshold

__all__ = [
    "APG",
    "DPS",
    "MMPS",
    "Autoguidance",
    "CFGpp",
    "ClassifierFree",
    "ClassifierGuidance",
    "Composed",
    "Energy",
    "Inpainting",
    "Interval",
    "Mask",
    "Matrix",
    "NoisyClassifier",
    "Operator",
    "PiGDM",
    "Threshold",
]

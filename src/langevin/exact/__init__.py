"""Denoisers in closed form, one a file: what a perfectly trained network would say, for data whose law is known."""

from langevin.exact.categorical import CategoricalDenoiser
from langevin.exact.empirical import EmpiricalDenoiser
from langevin.exact.gaussian import GaussianDenoiser
from langevin.exact.mixture import MixtureDenoiser

__all__ = ["CategoricalDenoiser", "EmpiricalDenoiser", "GaussianDenoiser", "MixtureDenoiser"]

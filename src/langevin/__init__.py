"""langevin: diffusion models on your own data.

    data --Codec.encode--> x0 --Process.corrupt--> x_t --Denoiser--> p(x0 | x_t) --Solver--> x0 --Codec.decode--> data

Importing this package imports neither torch nor NumPy; they come when something that computes is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from langevin.model import load as load
    from langevin.recipes.train import train as train

_LAZY = {"train": "langevin.recipes.train", "load": "langevin.model"}
__all__ = ["__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'langevin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

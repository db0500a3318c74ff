"""A model's folder as `transformers` writes it: config.json, preprocessor_config.json, model*.safetensors.

Pictures are prepared here and not by that package, so that features do not depend on its version, nor on what else is
installed: resized as 8-bit pictures with smoothing until the shorter side fits, the middle cut out, x / 255, then (x - mean) / std.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from langevin.errors import RefusedError, UsageError, nearest
from langevin.evaluation.pretrained.base import Pictures
from langevin.store import read_json

CONFIG = "config.json"
PREPARATION = "preprocessor_config.json"
_READ = ("*.json", "*.txt", "*.safetensors")


def package(name: str) -> Any:
    """A package of the extra `diffusers`. Raises UsageError where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"this needs {name}, which cannot be imported: {error}", help="pip install 'langevin[diffusers]'"
        ) from None


def folder_of(weights: Path | str, download: bool, revision: str | None) -> Path:
    """The folder itself, or where a named one lies after a former download, or after one now if that is allowed.

    Raises:
        UsageError: it is not here, and must not or cannot be fetched.
        RefusedError: it holds no safetensors.
    """
    folder = Path(weights)
    if not folder.is_dir():
        if isinstance(weights, Path) or weights.count("/") != 1 or weights.startswith((".", "/", "~")):
            raise UsageError("there is no such folder of a model", where=str(weights))
        hub = package("huggingface_hub")
        try:
            folder = Path(
                hub.snapshot_download(
                    weights, revision=revision, allow_patterns=list(_READ), local_files_only=not download
                )
            )
        except (
            OSError,
            ValueError,
        ) as error:  # every error of the network, of the name and of the cache is one of these
            raise UsageError(
                f"`{weights}` cannot be fetched: {error}" if download else f"`{weights}` is not on this disk",
                help="" if download else "download=True fetches it",
            ) from None
    if not any(folder.glob("model*.safetensors")):
        raise RefusedError(
            "the folder holds no model*.safetensors; nothing else is opened, since it could run code",
            where=str(folder),
            help="save it with save_pretrained(folder, safe_serialization=True) where it is trusted",
        )
    return folder


def files_of(folder: Path, more: tuple[str, ...] = ()) -> list[Path]:
    """The files that decide the features, in a fixed order."""
    named = [folder / name for name in (CONFIG, PREPARATION, *more)]
    return [file for file in named if file.is_file()] + sorted(folder.glob("model*.safetensors"))


def load(folder: Path, classes: dict[str, str], device: str) -> Any:
    """The model of a folder in float32, ready for use.

    Args:
        classes: class by `model_type`; others are refused.

    Raises:
        UsageError: `transformers` is missing.
        RefusedError: another kind of model, weights that are missing, too many or damaged.
    """
    kind = read_json(folder / CONFIG).get("model_type")
    if kind not in classes:
        raise RefusedError(
            f"a model of the kind `{kind}`", where=str(folder / CONFIG), help=nearest(str(kind), classes)
        )
    transformers = package("transformers")
    logging = transformers.utils.logging
    shows = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model, told = getattr(transformers, classes[kind]).from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise RefusedError(f"the model cannot be read: {error}", where=str(folder)) from None
    finally:
        if shows:
            logging.enable_progress_bar()
    if missing := sorted(told["missing_keys"]):  # left to themselves they would be random
        raise RefusedError(
            f"weights are missing: {', '.join(missing[:10])}", where=str(folder), help="use another copy"
        )
    return model.float().to(device).eval()


@dataclass(frozen=True)
class Preparation:
    """How pictures come to a network.

    side: pixels of the shorter side after resizing; filter: Pillow's number of the filter.
    crop: height and width that are cut out of the middle.
    """

    side: int
    filter: int
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, folder: Path) -> "Preparation":
        """From preprocessor_config.json. Raises RefusedError where that says something else than is done here."""
        path = folder / PREPARATION
        told = read_json(path)
        steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
        try:
            if (
                not all(told.get(step, True) for step in steps)
                or abs(told.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6
            ):
                raise ValueError("a step is left out or rescales by another factor than 1 / 255")
            kind = Image.Resampling(told.get("resample", Image.Resampling.BICUBIC))
            size, crop = told["size"], told["crop_size"]
            side = int(size["shortest_edge"] if isinstance(size, dict) else size)
            high, wide = (int(crop[key]) if isinstance(crop, dict) else int(crop) for key in ("height", "width"))
            mean, std = (tuple(float(v) for v in told[key]) for key in ("image_mean", "image_std"))
            if not (len(mean) == len(std) == 3 and min(std) > 0 and side >= max(high, wide) and min(high, wide) > 0):
                raise ValueError("sizes, mean and std do not fit each other")
        except (KeyError, TypeError, ValueError) as error:
            raise RefusedError(f"pictures cannot be prepared as it says: {error}", where=str(path)) from None
        return cls(side, int(kind), (high, wide), mean, std)

    def __call__(self, pictures: Pictures) -> Tensor:
        """uint8 RGB (n, H, W, 3) -> (n, 3, *crop) float32."""
        high, wide = pictures.shape[1:3]
        size = [self.side, int(self.side * wide / high)] if high <= wide else [int(self.side * high / wide), self.side]
        top, left = (size[0] - self.crop[0]) // 2, (size[1] - self.crop[1]) // 2
        kind = Image.Resampling(self.filter)
        cut = np.stack([np.asarray(Image.fromarray(p).resize((size[1], size[0]), kind)) for p in pictures])
        cut = cut[:, top : top + self.crop[0], left : left + self.crop[1]]
        x = (cut.astype(np.float32) / 255 - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()

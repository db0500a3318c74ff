"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193): the class token after the last layer normalisation.

Its Frechet distance follows human judgement better than Inception's (Stein et al. 2023, arXiv:2306.04675, with ViT-L/14).
"""

from pathlib import Path

from torch import Tensor

from langevin.evaluation.pretrained.base import Pictures, Pretrained, digest_of
from langevin.evaluation.pretrained.snapshot import Preparation, files_of, folder_of, load

_CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}


class Dinov2(Pretrained):
    """DINOv2 of any size, with or without registers, from a folder as `transformers` writes it."""

    name = "dinov2"

    def __init__(
        self, weights: Path | str, download: bool = False, revision: str | None = None, device: str = "cpu"
    ) -> None:
        folder = folder_of(weights, download, revision)
        self._prepare = Preparation.read(folder)
        self._model = load(folder, _CLASSES, device)
        self._device = device
        self.dim = int(self._model.config.hidden_size)
        self.frechet_name = "frechet[dinov2]"
        self.digest = digest_of(
            f"dinov2: {self._prepare}, 8 bits, class token after the last norm, 1", files_of(folder)
        )

    def embed(self, pictures: Pictures) -> Tensor:
        """uint8 RGB (n, H, W, 3) -> (n, dim) float32."""
        token: Tensor = self._model(self._prepare(pictures).to(self._device)).last_hidden_state[:, 0]
        return token

"""CLIP (Radford et al. 2021, arXiv:2103.00020): pictures and texts in one space, before they are brought to length 1."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from langevin.errors import DataError, RefusedError
from langevin.evaluation.pretrained.base import Array, Items, Pictures, Pretrained, Span, digest_of, in_batches
from langevin.evaluation.pretrained.snapshot import Preparation, files_of, folder_of, load, package

_WORDS = ("tokenizer.json", "vocab.json", "merges.txt")


def _has(folder: Path, *names: str) -> bool:
    return all((folder / name).is_file() for name in names)


class Clip(Pretrained):
    """CLIP of any size from a folder as `transformers` writes it, tokenizer included."""

    name = "clip"

    def __init__(
        self, weights: Path | str, download: bool = False, revision: str | None = None, device: str = "cpu"
    ) -> None:
        self._folder = folder_of(weights, download, revision)
        self._prepare = Preparation.read(self._folder)
        self._model = load(self._folder, {"clip": "CLIPModel"}, device)
        self._device = device
        self.dim = int(self._model.config.projection_dim)
        self.frechet_name = "frechet[clip]"
        self.digest = digest_of(f"clip: {self._prepare}, 8 bits, projection, 1", files_of(self._folder, _WORDS))

    def embed(self, pictures: Pictures) -> Tensor:
        """uint8 RGB (n, H, W, 3) -> (n, dim) float32."""
        seen = self._model.vision_model(pixel_values=self._prepare(pictures).to(self._device)).pooler_output
        projected: Tensor = self._model.visual_projection(seen)
        return projected

    def embed_texts(self, texts: Sequence[str], batch: int = 32) -> Array:
        """N texts -> (N, dim) float64. What is longer than the model reads (77 tokens for the published ones) is cut.

        Raises RefusedError where the folder has no tokenizer.
        """
        if not (_has(self._folder, "tokenizer.json") or _has(self._folder, "vocab.json", "merges.txt")):
            raise RefusedError("the folder has no tokenizer", where=str(self._folder), help="texts need tokenizer.json")
        length = int(self._model.config.text_config.max_position_embeddings)
        try:
            split = package("transformers").CLIPTokenizer.from_pretrained(
                self._folder, trust_remote_code=False, local_files_only=True
            )
        except (OSError, ValueError, TypeError) as error:
            raise RefusedError(f"its tokenizer cannot be read: {error}", where=str(self._folder)) from None

        def work(part: Sequence[str]) -> Tensor:
            tokens = split(list(part), padding=True, truncation=True, max_length=length, return_tensors="pt")
            read = self._model.text_model(**tokens.to(self._device)).pooler_output
            projected: Tensor = self._model.text_projection(read)
            return projected

        return in_batches(work, list, texts, batch, self.dim)

    def clip_score(self, items: Items, texts: Sequence[str], batch: int = 32, span: Span | None = None) -> Array:
        """How well each picture fits its text: 100 * max(cos, 0), (N,) in [0, 100], higher is better.

        The cosine and the clipping are those of Hessel et al. 2021 (arXiv:2104.08718), whose factor is 2.5; the factor
        100 is torchmetrics'. No prompt is put before the texts. Values compare between runs of the same `digest` alone.
        Raises DataError where there are not as many texts as pictures.
        """
        if isinstance(texts, str) or len(texts) != len(items):
            raise DataError(f"{len(items)} pictures, but {1 if isinstance(texts, str) else len(texts)} texts")
        a, b = self(items, batch, span), self.embed_texts(texts, batch)
        cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        return np.asarray(100 * np.maximum(cosine, 0))

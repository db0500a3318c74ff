"""Features by networks that others trained: Inception-v3, DINOv2, CLIP, from weights that lie on this disk."""

from langevin.evaluation.pretrained.base import Pretrained, as_pictures, pretrained

__all__ = ["Pretrained", "as_pictures", "pretrained"]

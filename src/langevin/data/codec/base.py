"""Codecs: raw arrays to model space and back. They compose; a latent autoencoder is one."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Codec(nn.Module, ABC):
    """`config` holds the plain values (JSON) from which `type(self)(**config)` makes the same codec again."""

    config: dict[str, Any]

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Raw (B, H, W, C), uint8, uint16 or float32, to float32 (B, C, H, W) in about [-1, 1]."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """float32 (B, C, H, W) to raw (B, H, W, C) in the data's own dtype and range."""

"""What every network is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A learned function of a noisy sample, its noise level and its conditions.

    `config` holds every constructor argument in JSON-able form: `type(net)(**net.config)` rebuilds the network, and
    `load_state_dict` then gives the same outputs bit for bit.
    A fresh network gives exactly 0. A sample's output never depends on its batch mates.
    `ends` are patterns of the names of parameters of the first layer, the last, and what embeds conditions or leads them into
    the blocks; Muon leaves these to AdamW.
    """

    config: dict[str, Any]
    ends: ClassVar[tuple[str, ...]] = ("conditions.*", "enter.*", "leave.*", "*.modulation.*")

    @abstractmethod
    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """The raw output for a batch.

        Args:
            x: (B, channels, *spatial), of about unit variance.
            c_noise: (B,), the noise level as the parametrization gives it, about log(sigma/alpha)/4 in [-3, 3].
            cond: by name, batch first; see `Conditions` for what a missing or empty condition is.

        Returns:
            (B, out_channels, *spatial).
        """

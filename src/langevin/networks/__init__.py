"""Networks: functions of (x, c_noise, cond) that know no schedule and no process."""

from langevin.networks.base import Network
from langevin.networks.memory import keep_memory
from langevin.networks.mlp import MLP
from langevin.networks.sizes import default_size
from langevin.networks.unet import UNet

__all__ = ["MLP", "Network", "UNet", "default_size", "keep_memory"]

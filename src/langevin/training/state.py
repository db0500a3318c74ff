"""Everything that a training run is at one moment. Saved and loaded, it goes on with the same bits."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from langevin.config import TrainConfig
from langevin.diffusion.loss import LearnedUncertainty
from langevin.diffusion.times import LossAware, TimeLaw
from langevin.errors import RefusedError
from langevin.registry import build
from langevin.training import ema, optimizer
from langevin.training.distributed import ALONE, Call, World, full, like
from langevin.training.guard import Guard
from langevin.training.parameters import freeze, kinds
from langevin.training.scale import LossScale
from langevin.training.secret import Secret
from langevin.training.terms import Terms


@dataclass
class TrainState:
    """Changed by `fit` alone, between two of its yields.

    Attributes:
        network: the raw weights.
        averages: sigma_rel -> averaged parameters, by name.
        optimizer: over what is trained of the network, and the learned uncertainty.
        law: the time law; one that learns carries what it learned.
        step: steps done.
        elapsed: seconds of wall clock spent, over all sittings.
        rate: factor on the learning rate.
        began: seconds that were spent before the first step; the learning rate's course begins there.
        lost: steps that were taken back.
        secret: of a private run.
        scale: of the loss, in float16.
        guard: what is remembered of numbers that went wrong.
        terms: what it is trained under; the config's where there are none.
        world: all processes of the run; rank 0's methods have the others do their part.
    """

    network: nn.Module
    averages: dict[float, dict[str, Tensor]]
    optimizer: torch.optim.Optimizer
    law: TimeLaw
    uncertainty: LearnedUncertainty | None = None
    step: int = 0
    elapsed: float = 0.0
    rate: float = 1.0
    skipped: int = 0
    began: float = 0.0
    lost: int = 0
    secret: Secret | None = None
    scale: LossScale = field(default_factory=LossScale)
    guard: Guard = field(default_factory=Guard)
    terms: Terms | None = None
    world: World = ALONE

    @staticmethod
    def start(network: nn.Module, config: TrainConfig, world: World = ALONE) -> "TrainState":
        """The state before the first step; under fsdp the network's parameters are shards already, and so are all others."""
        uncertainty = LearnedUncertainty() if config.uncertainty else None
        device = next(network.parameters()).device
        freeze(network, config.freeze)
        named = {k: p for k, p in network.named_parameters() if p.requires_grad}
        if uncertainty is not None:
            world.shard(uncertainty.to(device))
            named |= {f"uncertainty.{k}": p for k, p in uncertainty.named_parameters()}
        moves = optimizer.make(named, config.optimizer, kinds(network))
        averages = {s: {k: p.detach().clone() for k, p in network.named_parameters()} for s in config.ema}
        law = build(config.times, TimeLaw, foreign=True)
        secret = Secret.new() if config.private else None
        scale = LossScale.of(config.precision)
        return TrainState(network, averages, moves, law, uncertainty, secret=secret, scale=scale, world=world)

    @property
    def draw(self) -> int:
        """Which draw of the data the next step makes; a private run never makes one twice."""
        return self.step if self.secret is None else self.step + self.lost

    def average(self) -> None:
        """Move every average towards the weights of this step."""
        weights = self._weights
        for sigma_rel, average in self.averages.items():
            ema.update(average.values(), weights, self.step, sigma_rel)

    @cached_property
    def _weights(self) -> list[Tensor]:
        return list(self.network.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """All that is a tensor, by name, but the raw weights. Shards are put together for rank 0."""
        self._gather("tensors")
        out = {f"ema.{s}.{k}": v for s, average in self.averages.items() for k, v in average.items()}
        out |= {f"optimizer.{k}": v for k, v in optimizer.tensors(self.optimizer).items()}
        if self.uncertainty is not None:
            out |= {f"uncertainty.{k}": v for k, v in self.uncertainty.state_dict().items()}
        if isinstance(self.law, LossAware):
            out |= {"law.moments": self.law.moments, "law.counts": self.law.counts}
        return full(out)

    def weights(self) -> dict[str, Tensor]:
        """The raw weights by name. Shards are put together for rank 0."""
        self._gather("weights")
        return full(self.network.state_dict())

    def average_of(self, sigma_rel: float) -> dict[str, Tensor]:
        """The average of that width by name. Shards are put together for rank 0."""
        self._gather("average", list(self.averages).index(sigma_rel))
        return full(self.averages[sigma_rel])

    def _gather(self, what: Call, *numbers: float) -> None:
        if self.world.parallel == "fsdp":
            self.world.call(what, *numbers)

    def numbers(self) -> dict[str, Any]:
        """All that is a number; what follows the wall clock is apart, under "clock"."""
        return {
            "step": self.step,
            "rate": self.rate,
            "skipped": self.skipped,
            "guard": self.guard.numbers(),
            "terms": None if self.terms is None else asdict(self.terms),
            "clock": {"elapsed": self.elapsed, "began": self.began},
            "optimizer": optimizer.numbers(self.optimizer),
            "scale": asdict(self.scale),
            **({} if self.secret is None else {"lost": self.lost, "secret": [f"{w:016x}" for w in self.secret.words]}),
        }

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take on raw weights, those of rank 0 on all processes."""
        self.world.call("load")
        found, own = self.world.share_tensors(lambda: weights), self.network.state_dict()
        self.network.load_state_dict({k: like(own[k], v) if k in own else v for k, v in found.items()})

    def tell(self) -> None:
        """Rank 0's numbers were changed, and the others take them on."""
        self.world.call("numbers")
        if self.world.size > 1:
            self._take(self.world.share(self.numbers))

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Take on a saved state but its raw weights, that of rank 0 on all processes.

        Raises:
            RefusedError: names do not match.
        """
        self.world.call("take")
        tensors, numbers = self.world.share_tensors(lambda: tensors), self.world.share(lambda: numbers)
        self._take(numbers)
        self._hold(tensors, numbers)

    def _take(self, numbers: dict[str, Any]) -> None:
        clock = numbers.get("clock", numbers)
        self.elapsed, self.began = float(clock["elapsed"]), float(clock["began"])
        self.step, self.rate, self.skipped = int(numbers["step"]), float(numbers["rate"]), int(numbers["skipped"])
        self.lost = int(numbers.get("lost", 0))
        self.terms = Terms(**numbers["terms"]) if numbers.get("terms") else None
        self.guard = Guard.of(numbers.get("guard", {}))
        self.scale = LossScale(**numbers.get("scale", asdict(self.scale)))

    def _hold(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        try:
            with torch.no_grad():
                for sigma_rel, average in self.averages.items():
                    for k, v in average.items():
                        v.copy_(like(v, tensors[f"ema.{sigma_rel}.{k}"]))
            if self.uncertainty is not None:
                own = {k: like(v, tensors[f"uncertainty.{k}"]) for k, v in self.uncertainty.state_dict().items()}
                self.uncertainty.load_state_dict(own)
            if isinstance(self.law, LossAware):
                moments, counts = tensors["law.moments"], tensors["law.counts"]
                law = self.law
                self.law = LossAware(law.bins, law.warm, law.decay, law.floor, moments, counts)
            if self.secret is not None:
                first, second = (int(word, 16) for word in numbers["secret"])
                self.secret = Secret((first, second))
            moved = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
            optimizer.restore(self.optimizer, moved, numbers.get("optimizer", {}))
        except KeyError as error:
            raise RefusedError(f"the checkpoint has no {error.args[0]}", help="it belongs to another run") from None

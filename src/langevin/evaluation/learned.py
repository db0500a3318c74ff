"""Features that a small network learns from the training items themselves: no download, and they know what matters in these data.

Where the items have classes the network learns to tell them; its last layer but one, 64 numbers, describes an item, and its
answers judge conditional samples. Without classes it learns to say an item again from 64 numbers (an autoencoder), and those
describe it. Pictures go through three convolutions, averaged down to 32 pixels a side where they have more; anything else goes
through two linear layers.

The network is trained on training items alone, in the same way from the same seed; what it says of held-out items, `accuracy`,
stands beside every figure that rests on it. On other machines its rounding differs, and so does its digest.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin.errors import DataError
from langevin.evaluation.cached import Kept, key_of
from langevin.evaluation.features import Array, Features, Items, content, pooled

DIM = 64
SIDE = 32
ITEMS, BATCH = 64_000, 64
"""Items that a network sees in its training, at most forty times each; how many at once."""
MOST_TIMES = 40
DEFINITION = "convolutions 32/4/2 64/3/1 96/3/2 or two layers of 256, 64 features, AdamW one cycle to 3e-3, 1"


class Encoder(nn.Module):
    """Items (B, C, H, W) or (B, D) to features (B, 64)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(shape) == 3:
            layers: list[nn.Module] = []
            channels = shape[0]
            for width, size, stride in ((32, 4, 2), (64, 3, 1), (96, 3, 2)):
                layers += [nn.Conv2d(channels, width, size, stride, 1), nn.GELU()]
                channels = width
            sides = [(side // 2 + 1) // 2 for side in shape[1:]]
            self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * sides[0] * sides[1], DIM))
        else:
            self.body = nn.Sequential(nn.Linear(shape[0], 256), nn.GELU(), nn.Linear(256, DIM))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.body(x))


@dataclass(frozen=True, eq=False)
class Learned(Features):
    """Made by `learn`.

    encoder: items to features; head: features to logits, or to the item's values. classes: how many; 0 without labels.
    accuracy: share of held-out items whose class it finds; nan where that is not known.
    center, scale: of the values that the network is shown.
    """

    encoder: nn.Module
    head: nn.Module
    classes: int
    center: float
    scale: float
    digest: str
    accuracy: float = float("nan")

    @property
    def name(self) -> str:  # type: ignore[override]
        return "classifier" if self.classes else "autoencoder"

    @property
    def dim(self) -> int:  # type: ignore[override]
        return DIM

    @torch.inference_mode()
    def __call__(self, items: Items) -> Array:
        return self._through(self.encoder, items, DIM)

    def probabilities(self, items: Items) -> Array:
        """(N, classes) of items (N, ...)."""
        if not self.classes:
            raise DataError("a network that was trained without classes tells none")
        with torch.inference_mode():
            logits = self._through(lambda x: self.head(self.encoder(x)), items, self.classes)
        exps = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(exps / exps.sum(1, keepdims=True))

    def classify(self, items: Items) -> NDArray[np.intp]:
        """(N,) the most likely class."""
        return np.asarray(self.probabilities(items).argmax(1))

    def _through(self, network: Callable[[Tensor], Tensor], items: Items, width: int) -> Array:
        found = np.empty((len(items), width))
        for start in range(0, len(items), 256):
            part = np.asarray(items[start : start + 256])
            found[start : start + 256] = network(self._shown(part)).double().numpy()
        return found

    def _shown(self, items: Items) -> Tensor:
        return (as_input(items) - self.center) / self.scale


def as_input(items: Items) -> Tensor:
    """(N, C, H, W) of pictures (N, H, W, C), sides of 32 at most, or (N, D) of anything else; float32."""
    values = pooled(np.asarray(items), SIDE)
    values = np.moveaxis(values, -1, 1) if values.ndim == 4 else values.reshape(len(values), -1)
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def learn(
    items: Items,
    labels: NDArray[np.integer] | None = None,
    classes: int = 0,
    *,
    held_out: tuple[Items, NDArray[np.integer]] | None = None,
    seed: int = 0,
    budget: int | None = None,
    heed: Callable[[], None] = lambda: None,
    kept: Kept | None = None,
) -> Learned:
    """Train a network on items (N, ...).

    Args:
        labels: (N,) classes 0 ... classes - 1; negative ones are unknown, and those items are left out. None: an autoencoder.
        held_out: items and their labels, on which `accuracy` is taken.
        seed: of the weights and of the order.
        budget: items that are seen in training; `ITEMS` where it is not given.
        heed: called at every step; what it raises ends the training.
        kept: where the weights are kept, so that the same items need not be learned from twice.

    Raises:
        DataError: fewer than 16 items, or than two classes.
    """
    items = np.asarray(items)
    rows = np.arange(len(items)) if labels is None else np.flatnonzero(np.asarray(labels) >= 0)
    if len(rows) < 16 or (labels is not None and len(np.unique(np.asarray(labels)[rows])) < 2):
        raise DataError("features are learned from 16 items and more, of two classes and more where they have classes")
    target = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64))
    sample = pooled(items[rows[np.linspace(0, len(rows) - 1, min(len(rows), 2000)).astype(int)]], SIDE)
    center, scale = float(sample.mean()), max(float(sample.std()), 1e-6)
    steps = max(50, min(budget or ITEMS, MOST_TIMES * len(rows)) // BATCH)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = tuple(as_input(items[rows[:1]]).shape[1:])
        encoder = Encoder(shape)
        head = nn.Sequential(nn.GELU(), nn.Linear(DIM, classes)) if classes else _decoder(shape)
        network = nn.ModuleDict({"encoder": encoder, "head": head})
        made = Learned(encoder, head, classes, center, scale, "")

        def train() -> dict[str, NDArray[np.generic]]:
            _train(made, items, rows, target, steps, generator, heed)
            return {name: value.numpy() for name, value in network.state_dict().items()}

        of = f"{DEFINITION}; {classes}; {seed}; {content(items)}"
        key = key_of("learned", of, steps, "" if labels is None else content(np.asarray(labels)))
        found = (kept or Kept()).get(key, train)
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in found.items()})
    network.eval().requires_grad_(False)
    digest = hashlib.sha256(f"learned: {of}".encode())
    for weight in (*encoder.state_dict().values(), *head.state_dict().values()):
        digest.update(weight.numpy().tobytes())
    accuracy = float("nan")
    if held_out is not None and classes:
        known = np.asarray(held_out[1]) >= 0
        if known.any():
            accuracy = float((made.classify(held_out[0][known]) == np.asarray(held_out[1])[known]).mean())
    return Learned(encoder, head, classes, center, scale, digest.hexdigest(), accuracy)


def _decoder(shape: tuple[int, ...]) -> nn.Module:
    values = int(np.prod(shape))
    return nn.Sequential(nn.GELU(), nn.Linear(DIM, 512), nn.GELU(), nn.Linear(512, values), nn.Unflatten(1, shape))


def _train(
    made: Learned,
    items: Items,
    rows: NDArray[np.intp],
    target: Tensor | None,
    steps: int,
    generator: torch.Generator,
    heed: Callable[[], None],
) -> None:
    parameters = [*made.encoder.parameters(), *made.head.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        heed()
        while len(order) < BATCH:
            order = torch.cat([order, torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]])
        chosen, order = np.sort(order[:BATCH].numpy()), order[BATCH:]
        x = made._shown(items[chosen])
        said = made.head(made.encoder(x))
        loss = F.mse_loss(said, x) if target is None else _entropy(said, target[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()


def _entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, label_smoothing=0.05)

"""Differentially private training: what a model says must not depend much on any one item it was trained on.

DP-SGD (Abadi et al., "Deep Learning with Differential Privacy", 2016): at each step every training item is taken with
probability q by itself (Poisson sampling), the gradient of each is cut to norm `clip`, and normal noise of standard deviation
`noise * clip` is added to their sum. An item's gradient is the mean over several draws of time and noise, which costs no
privacy (noise multiplicity: Dockhorn et al., "Differentially Private Diffusion Models", 2023, section 3.2). Averages of the
weights are made of what was already released, and cost nothing either.

Losses of training items would tell more of them than is accounted for: nobody finds them. What a private run prints, and what it
stops or is sent back for, are losses of held-out items, which it never learns from, and of the noised gradient.

What was spent is Opacus's account (Renyi differential privacy of the sampled Gaussian mechanism: Mironov et al. 2019), for
neighbouring sets that differ by one item more or less. It covers the weights. It does not cover held-out items,
by which the best average is chosen, nor what else is said of the data: their standard deviation, how frequent each class is, and
the figures and sheets at the end.

The choice of items and the noise come from a secret that the system gives, not from the run's seed: who knew them could take
the noise away again. It lies in the checkpoints, which an exact resume needs, and nowhere in the model folder: share that one,
and not the run. (Philox is no cryptographic generator, and rounding of floating-point noise is not accounted for.)
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from langevin.config import PrivateConfig, TrainConfig
from langevin.diffusion.weights import Weight
from langevin.errors import UsageError
from langevin.training.chance import chance
from langevin.training.feed import Batch, Feed
from langevin.training.gradient import Loss, Losses
from langevin.training.guard import silence
from langevin.training.secret import CHOICE, NOISE, Secret
from langevin.training.state import TrainState

AT_ONCE = 16
"""So many items' gradients are held at once where nothing else is said."""
WATCHED = 1 / 32
"""So many held-out samples are looked at for each that a step takes the gradient of, which is three times as dear."""
LEAST, MOST = 4, 32
"""Held-out samples of a step."""


@dataclass(frozen=True, eq=False)
class PrivateFeed(Feed):
    """Every item is taken by itself with probability batch / count, as the secret has it; each `draws` times.

    Args:
        state: whose secret says which items are taken.
        draws: times and noises an item has at a step.
    """

    state: TrainState | None = None
    draws: int = 1

    def rows(self, step: int) -> np.ndarray:
        assert self.state is not None and self.state.secret is not None
        taken = self.state.secret.generator(step, CHOICE).random(len(self.indices)) < self.batch / len(self.indices)
        return np.repeat(self.indices[taken], self.draws)

    def place(self, step: int) -> int:
        return step << 32

    @property
    def is_private(self) -> bool:
        return True

    @cached_property
    def unseen(self) -> Feed:
        """A few held-out items a step, by which a run may be judged."""
        count = min(max(int(WATCHED * self.batch * self.draws), LEAST), MOST)
        rows = self.dataset.held_out_indices
        return Feed(self.dataset, self.codec, rows, self.seed, count, device=self.device)


class _Cost(nn.Module):
    """The loss of one item's draws, as a function of the denoiser's weights."""

    def __init__(self, denoiser: nn.Module, compute: Any, weight: Any) -> None:
        super().__init__()
        self.denoiser, self.compute, self.weight = denoiser, compute, weight

    def forward(self, x0: Tensor, t: Tensor, eps: Tensor, scale: Tensor, cond: dict[str, Tensor]) -> Tensor:
        each = self.compute(self.denoiser, x0, t, lambda like: eps, self.weight, cond=cond)
        return (each * scale.to(each)).mean()


def private_gradient(
    denoiser: Any, batch: Batch, config: TrainConfig, state: TrainState, weight: Weight, compute: Loss, *, unseen: Feed
) -> Losses:
    """Put the noised mean of clipped gradients where the optimizer looks for a gradient; like `gradient.gradient`.

    Returns:
        the losses of held-out items, of `unseen`: those of the batch are nobody's business.
    """
    settings, secret = config.private, state.secret
    assert settings is not None and settings.noise is not None and secret is not None and config.batch is not None
    K, device = settings.draws, batch.x0.device
    t, importance = (v.to(device).unflatten(0, (-1, K)) for v in state.law(batch.u, denoiser.process.schedule))
    parameters = {k: p for k, p in denoiser.named_parameters() if p.requires_grad}
    total = {k: torch.zeros_like(p) for k, p in parameters.items()}
    for rows in (
        torch.arange(len(t)).split(config.micro_batch or AT_ONCE) if len(t) else ()
    ):  # it may be that none is taken
        part = slice(K * int(rows[0]), K * (int(rows[-1]) + 1))
        x0, eps = batch.x0[part], batch.noise(part)(batch.x0[part])
        cond = {name: value[part].unflatten(0, (-1, K)) for name, value in batch.cond.items()}
        x0, eps = x0.unflatten(0, (-1, K)), eps.unflatten(0, (-1, K))
        with chance(batch.keys[part], device):
            found = per_sample_gradients(denoiser, compute, weight, x0, t[rows], eps, importance[rows], cond)
        for k, cut in clipped_sum(found, settings.clip)[0].items():
            total[k] += cut
    for k, z in noise_of(secret, state.draw, parameters).items():
        parameters[k].grad = (total[k] + settings.noise * settings.clip * z) / config.batch
    return _watched(denoiser, unseen.at(state.step), state, weight, compute)


@torch.no_grad()
def _watched(denoiser: Any, batch: Batch, state: TrainState, weight: Weight, compute: Loss) -> Losses:
    """What held-out samples cost."""
    t, importance = state.law(batch.u, denoiser.process.schedule)
    with chance(batch.keys, batch.x0.device):
        each = compute(denoiser, batch.x0, t, batch.noise(), weight, cond=batch.cond)
    return Losses(t, each, importance, silence(denoiser, batch.x0, t, weight))


def per_sample_gradients(
    denoiser: nn.Module, compute: Any, weight: Any, x0: Tensor, t: Tensor, eps: Tensor, scale: Tensor, cond: Any
) -> dict[str, Tensor]:
    """Gradients of each item's loss, the mean over its K draws: {name: (B, *shape)}.

    Args:
        x0, eps: (B, K, ...).
        t, scale: (B, K), times and what each draw counts.
        cond: name -> (B, K, ...).
    """
    cost = _Cost(denoiser, compute, weight)
    wanted = {k: p.detach() for k, p in cost.named_parameters() if p.requires_grad}

    def one(parameters: dict[str, Tensor], *item: Any) -> Tensor:
        out: Tensor = functional_call(cost, parameters, item)
        return out

    found = vmap(grad(one), in_dims=(None, 0, 0, 0, 0, 0), randomness="different")(wanted, x0, t, eps, scale, cond)
    return {k.removeprefix("denoiser."): g for k, g in found.items()}


def clipped_sum(gradients: dict[str, Tensor], clip: float) -> tuple[dict[str, Tensor], Tensor]:
    """(sum over items of the gradients cut to norm `clip`, norms (B,) before). One that is not finite counts as 0."""
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
    factor = torch.where(norms.isfinite(), (clip / norms.clamp(min=1e-12)).clamp(max=1.0), 0.0)
    clean = {k: torch.where(_beside(norms.isfinite(), g), g, 0.0) for k, g in gradients.items()}
    return {k: torch.einsum("b,b...->...", factor.to(g), g) for k, g in clean.items()}, norms


def _beside(flags: Tensor, like: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (like.ndim - 1))


def noise_of(secret: Secret, draw: int, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Standard normal numbers for every parameter, a function of the secret and the draw."""
    rng = secret.generator(draw, NOISE)
    return {
        k: torch.from_numpy(rng.standard_normal(p.numel(), dtype="float32")).view(p.shape).to(p.device)
        for k, p in parameters.items()
    }


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """What `steps` steps spend; infinite without noise.

    Args:
        noise: standard deviation of the noise over the clipping norm.
        rate: q, the share of items taken at a step.

    Raises:
        UsageError: Opacus is not installed.
    """
    if steps == 0:
        return 0.0
    if not noise:
        return math.inf
    return _of(_orders(), _spending(noise, rate, steps), delta)


def _orders() -> list[float]:
    return [1 + x / 10 for x in range(1, 100)] + [float(x) for x in (*range(12, 64), *range(64, 512, 32))]


def _spending(noise: float, rate: float, steps: int) -> Any:
    try:
        from opacus.accountants.analysis import rdp
    except ImportError:
        raise UsageError("private training needs Opacus", help="pip install 'langevin[private]'") from None
    return rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=_orders())


def _of(orders: list[float], spent: Any, delta: float) -> float:
    import warnings

    from opacus.accountants.analysis import rdp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an order at the end of the list: the bound holds, and could be tighter
        return float(rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)[0])


def noise_for(target: float, rate: float, steps: int, delta: float) -> float:
    """The least noise, to a thousandth, with which `steps` steps spend at most `target`. Raises UsageError beyond reach."""
    low, high = 0.0, 1.0
    while epsilon(high, rate, steps, delta) > target:
        low, high = high, 2 * high
        if high > 1e4:
            raise UsageError(
                f"no noise keeps {steps:,} steps within epsilon {target:g}", help="ask for more, or fewer steps"
            )
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if epsilon(middle, rate, steps, delta) <= target else (middle, high)
    return high


def most_steps(target: float, noise: float, rate: float, delta: float) -> int:
    """The largest number of steps that spend at most `target`."""
    one = _spending(noise, rate, 1)  # what is spent adds up, order by order

    def spent(n: int) -> float:
        return _of(_orders(), one * n, delta)

    if spent(1) > target:
        return 0
    low, high = 1, 2
    while spent(high) <= target and high < 1 << 40:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= target else (low, middle)
    return low


def settle(settings: PrivateConfig, count: int, batch: int, steps: int | None) -> PrivateConfig:
    """What a run does where the user left it open: delta, the noise, and how many steps epsilon allows.

    Args:
        count: training items.
        batch: how many of them a step takes on average.
        steps: of the run; None where minutes decide.

    Raises:
        UsageError: neither noise nor epsilon with a number of steps, or an epsilon that the first step spends.
    """
    delta = settings.delta or min(1e-5, 0.1 / count)
    rate = batch / count
    noise = settings.noise
    if noise is None:
        if settings.epsilon is None or steps is None:
            raise UsageError(
                "the noise of private training is open",
                help="give private.noise (such as 1.0), or private.epsilon together with --steps",
            )
        noise = noise_for(settings.epsilon, rate, steps, delta)
    most = settings.steps
    if settings.epsilon is not None:
        most = most_steps(settings.epsilon, noise, rate, delta)
        if most == 0:
            raise UsageError(
                f"one step spends more than epsilon {settings.epsilon:g}",
                help="more noise, a smaller batch, or more items",
            )
    return settings.model_copy(update={"delta": delta, "noise": noise, "steps": most})


def share(config: TrainConfig, state: TrainState) -> float:
    """How much of the steps that epsilon allows was taken, 0 to 1; 0 where there is no such limit."""
    most = config.private.steps if config.private else None
    return state.draw / most if most else 0.0


def spent(config: TrainConfig, state: TrainState, count: int) -> str:
    """What a run of `count` training items has spent so far, in words; "" for one that is not private."""
    settings = config.private
    if settings is None or settings.noise is None or settings.delta is None or config.batch is None:
        return ""
    found = epsilon(settings.noise, config.batch / count, state.draw, settings.delta)
    steps = f"{state.draw:,} step{'s' * (state.draw != 1)}"
    return f"epsilon {found:.2f} at delta {settings.delta:.1e} for {steps} (noise {settings.noise:.3g})"

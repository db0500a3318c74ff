"""What each process of a test does; started by torchrun. Rank 0 writes what came out as JSON."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from langevin.diffusion.loss import denoising_loss
from langevin.recipes import crew, plan
from langevin.training import TrainState, checkpoint, fit
from langevin.training.distributed import ALONE, World, full, join
from langevin.training.feed import Feed
from langevin.training.memory import ShortEverywhereError
from tests.training.runs import TINY, prepared


class Run:
    """A run in memory, on one process or all."""

    def __init__(self, world: World, path: Path, **changes) -> None:
        base = {"steps": 100, "batch": 10, "network": {**TINY, "attention": [1]}, "precision": "float32"}
        dataset, config, model = prepared(path, **{**base, **changes})
        self.world, self.config, self.model = world, config, model
        self.trained = crew.spread(self.model.denoiser, config, world)
        self.state = TrainState.start(self.model.denoiser.network, config, world)
        part = {"rank": world.rank, "world": world.size}
        self.feed = Feed(dataset, self.model.codec, dataset.train_indices, 0, config.batch, drop=0.1, **part)
        self.troubles: list[tuple[int, str, dict]] = []
        self.learn()

    def learn(self, compute=None) -> None:
        """From here on by that loss."""
        self.steps = fit(self.trained, self.feed, self.config, self.state, compute=compute, world=self.world)

    def go(self, count: int) -> list[list[float]]:
        """Loss and gradient norm of so many steps."""
        rows = []
        for _ in range(count):
            if not self.world.is_main:
                what, (self.state.elapsed, self.state.began, _) = self.world.hear()
                assert what == "step"
            metrics = next(self.steps)
            rows.append([metrics.loss, metrics.grad_norm])
            self.troubles += [(metrics.step, trouble.what, trouble.facts) for trouble in metrics.troubles]
        return rows

    def bits(self) -> dict[str, torch.Tensor]:
        """All tensors, whole; every process has to ask."""
        weights = full(self.state.network.state_dict())
        return {**weights, **full(self._tensors())}

    def _tensors(self) -> dict[str, torch.Tensor]:
        if self.world.size > 1 and self.world.parallel == "fsdp" and not self.world.is_main:
            self.world.hear()
        return self.state.tensors()


def curves(world: World, path: Path, steps: int) -> dict:
    """Losses of one process, and of all of them with copies and with shards; with everything that has a memory."""
    every = {"times": {"name": "loss_aware", "bins": 4, "warm": 2}, "uncertainty": True, "micro_batch": 3}
    found = {}
    for name, of, more in (
        ("alone", ALONE, every),
        ("ddp", world.under("ddp"), every),
        ("fsdp", world.under("fsdp"), every | {"micro_batch": 5}),  # as many parts on each process
    ):
        if of.size > 1 or world.is_main:
            found[name] = Run(of, path, steps=steps, **more).go(steps)
    return found


def half(world: World, path: Path) -> dict:
    """Losses in half precision, of one process and of all; and the scale of the loss where it begins far too large."""
    found = {}
    for name, of in (("alone", ALONE), ("ddp", world.under("ddp")), ("fsdp", world.under("fsdp"))):
        if of.size == 1 and not world.is_main:
            continue
        for precision in ("float16", "bfloat16"):
            found[f"{precision} {name}"] = Run(of, path, precision=precision).go(12)
        run = Run(of, path, precision="float16")
        run.state.scale.factor = 2.0**32
        found[f"scale {name}"] = [run.go(20), run.state.scale.factor, run.state.skipped]
    return found


def evaluation(world: World, path: Path) -> dict:
    """How far an evaluation that is spread is from that of one process, for batches that are cut unevenly."""
    run = Run(ALONE, path)
    torch.manual_seed(world.rank)  # weights differ until rank 0's are taken on
    network = run.model.denoiser.network.eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    team = crew.Crew(world, network)
    if not world.is_main:
        while (said := world.hear())[0] != "leave":
            if said[0] == "use":
                team.take_weights()
            else:
                team.take_part(int(said[1][0]))
        return {}
    apart = []
    with torch.no_grad():
        for count, cond in ((7, {"label": torch.arange(7) % 2}), (1, None), (32, {}), (3, None)):
            x, c = torch.randn(count, 1, 8, 8), torch.linspace(-2, 2, count)
            apart.append(float((network(x, c, cond) - team._alone(x, c, cond)).abs().max()))
    world.call("leave", 0)
    return {"apart": apart}


SPOILT = 7
"""Place in the batch of 10; of two processes it is the second's."""


def spoilt(world: World, path: Path) -> dict:
    """Six steps: the loss of one sample is nan in the second, its gradient in the third, what a layer gives of it in the fourth."""
    now: list[np.ndarray] = []  # places of the samples that are computed, in the stream of all

    def compute(denoiser, x0, t, noise, weight, *, cond=None):
        now[:] = [np.array([key[1] for key in noise.keys])]
        loss = denoising_loss(denoiser, x0, t, noise, weight, cond=cond)
        first, second = (torch.from_numpy(now[0] == 10 * step + SPOILT) for step in (1, 2))
        root = torch.where(second, 0 * loss, 1.0).sqrt() * second  # whose slope at 0 is infinite
        return loss * torch.where(first, np.nan, 1.0) + root

    def poison(module, given, out):
        return torch.where(torch.from_numpy(now[0] == 30 + SPOILT).view(-1, 1, 1, 1), np.nan, out)

    found = {}
    for name, of in (("alone", ALONE), ("ddp", world.under("ddp")), ("fsdp", world.under("fsdp"))):
        if of.size == 1 and not world.is_main:
            continue
        run = Run(of, path)
        run.learn(compute)
        dict(run.state.network.named_modules())["bottom.0"].register_forward_hook(poison)
        rows = run.go(6)
        found[name] = {"rows": [row for row in rows if np.isfinite(row).all()], "troubles": run.troubles}
    return found


def short(world: World, path: Path) -> dict:
    """Four steps where one process has room for three samples at once, or for none; and where three are asked for."""

    def no_more_than(count: int):
        def compute(denoiser, x0, t, noise, weight, *, cond=None):
            if world.rank == 1 and len(x0) > count:
                raise MemoryError
            return denoising_loss(denoiser, x0, t, noise, weight, cond=cond)

        return compute

    found = {}
    every = {"times": {"name": "loss_aware", "bins": 4, "warm": 2}, "uncertainty": True}
    for name, most, more in (("found", 3, {}), ("asked", 10, {"micro_batch": 3}), ("none", 0, {})):
        run = Run(world.under("ddp"), path, **every, **more)
        run.learn(no_more_than(most))
        try:
            rows = run.go(4)
        except ShortEverywhereError as error:
            rows = [str(error)]
        found[name] = {"rows": rows, "troubles": run.troubles, "step": run.state.step}
    return found


def stored(world: World, path: Path, folder: Path, action: str, parallel: str) -> dict:
    """Save after 6 steps, or load and go on; gives the next losses and a fingerprint of all tensors."""
    of = world.under(parallel) if world.size > 1 else ALONE
    run = Run(of, path)
    rows = []
    if action == "save":
        run.go(6)
    elif world.is_main:
        checkpoint.restore(checkpoint.folders(folder)[0], run.model, run.state)
    else:
        for _ in range(2):
            what, _numbers = world.hear()
            {"take": lambda: run.state.restore({}, {}), "load": lambda: run.state.load({})}[what]()
    bits = run.bits()
    sums = {k: float(np.abs(v.double().numpy()).sum()) for k, v in bits.items()} if world.is_main else {}
    if action == "save":
        if world.is_main:
            import dataclasses

            weights = run.state.weights()
            whole = plan.make(run.config, run.feed.dataset)
            whole.denoiser.network.load_state_dict(weights)
            checkpoint.save(folder, dataclasses.replace(whole, raw=weights), run.state)
        elif parallel == "fsdp":
            world.hear()
            run.state.weights()
            world.hear()
            run.state.tensors()
    rows = run.go(3)
    return {"sums": sums, "rows": rows}


def main() -> None:
    out, what, path, *more = sys.argv[1:]
    torch.set_num_threads(1)
    with join("cpu") as world:
        found = {}
        if what == "curves":
            found = curves(world, Path(path), int(more[0])) | evaluation(world, Path(path))
        elif what == "half":
            found = half(world, Path(path))
        elif what == "spoilt":
            found = spoilt(world, Path(path))
        elif what == "short":
            found = short(world, Path(path))
        elif what == "stored":
            found = stored(world, Path(path), Path(more[0]), more[1], more[2])
        if world.is_main:
            Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()

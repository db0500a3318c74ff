"""One sitting of a run: build what it trains, train, look from time to time, publish, measure."""

import copy
import dataclasses
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin.config import TrainConfig
from langevin.data.dataset import Dataset
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.errors import LangevinError, UsageError
from langevin.evaluation.noise_levels import LEVELS, LevelLoss, held_out_loss
from langevin.model import Model
from langevin.networks import keep_memory
from langevin.recipes import averages, init, plan
from langevin.recipes.console import Console, one_line
from langevin.recipes.outcome import Run, measure, preview
from langevin.recipes.pace import Pace, words
from langevin.recipes.signals import StopRequest
from langevin.recipes.watch import Began, Event, Finished, Looked, Stepped, Trained, Watcher
from langevin.registry import build
from langevin.training import Metrics, TrainState, checkpoint, fit, private
from langevin.training.feed import Feed
from langevin.training.private import PrivateFeed
from langevin.training.snapshots import Snapshots

HELD_OUT = 256
"""So many held-out items the loss is measured on."""
LOOKS = 8
"""So many times a run stops to measure and to draw a preview, at most; a short one less often."""
LOOK_SECONDS = 5.0
"""Between two looks."""
CHECKPOINT_SECONDS = 120.0


class StoppedError(LangevinError):
    """The run was asked to stop and has saved; `exit_code` is 75 or 130."""

    def __init__(self, what: str, *, exit_code: int, help: str) -> None:
        super().__init__(what, help=help)
        self.exit_code = exit_code


class Session:
    """One sitting of a run: builds what it trains, trains, looks from time to time, and finishes.

    Args:
        started: `time.perf_counter()` from which the budget counts.
        watchers: told of everything that happens; see `watch`.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        dataset: Dataset,
        console: Console,
        stop: StopRequest,
        started: float,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        keep_memory()
        self.folder, self.config, self.dataset = folder, config, dataset
        self.console, self.stop, self.started, self.watchers = console, stop, started, watchers
        self.device = torch.device(plan.device())
        self.model = plan.make(config, dataset).to(self.device)
        if config.init is not None and checkpoint.newest(folder, console.say) is None:
            init.begin(self.model, config, console.say)
        self.state = TrainState.start(self.model.denoiser.network, config)
        kind, more = (
            (PrivateFeed, {"state": self.state, "draws": config.private.draws}) if config.private else (Feed, {})
        )
        self.feed = kind(
            dataset,
            self.model.codec,
            dataset.train_indices,
            config.seed,
            config.batch or 1,
            drop=config.dropout,
            mirror=config.data.flip,
            device=self.device,
            **more,
        )
        self.averaged = copy.deepcopy(self.model.denoiser).eval().requires_grad_(False)
        self.weight = build(dict(config.weight or {}), Weight, foreign=True)
        self.law = build(dict(config.times), TimeLaw, foreign=True)  # as it began: the levels stay where they are
        self.unseen_are_seen = not len(dataset.held_out_indices)
        rows = dataset.train_indices if self.unseen_are_seen else dataset.held_out_indices
        spread = np.linspace(0, len(rows) - 1, min(len(rows), HELD_OUT)).astype(int)
        self.unseen = self.feed.items(rows[spread])
        self.measured: list[averages.Measured] = []

    def run(self) -> Run:
        """Train to the end of the budget, publish, measure."""
        level = self.learn()
        count = len(self.dataset.train_indices)
        done = measure(
            self.averaged_model(),
            self.dataset,
            self.folder,
            self.config,
            level,
            averages=self.measured,
            done=f"{self.state.step:,} steps of {self.config.batch}, {self.state.elapsed / 60:.1f} min, seed {self.config.seed}"
            + (
                f"; differentially private: {spent}" if (spent := private.spent(self.config, self.state, count)) else ""
            ),
            console=self.console,
            heed=self._heed,
        )
        self._tell(Finished(self.state.step, done))
        return done

    def learn(self) -> LevelLoss:
        """Train to the end of the budget; the best average is then what `averaged_model` gives."""
        if newest := checkpoint.newest(self.folder, self.console.say):
            checkpoint.restore(newest, self.model, self.state)
            self.console.say(f"going on from step {self.state.step:,} ({self.state.elapsed / 60:.1f} min done)")
        elif (self.folder / "checkpoints").exists():
            self.console.say("no sound checkpoint is left: the run starts over")
        _drop_rows_after(self.folder / "metrics.jsonl", self.state.step)
        self.snapshots = Snapshots(self.folder, self.state.step, self._progress(), self.console.say)
        self._say_plan()
        self._tell(Began(self.folder, self.config, self.model, self.feed, self.law, self.unseen, self.state.step))
        self._train()
        level = self._publish()
        self._tell(Trained(self.state.step, level))
        return level

    def _tell(self, event: Event) -> None:
        for watcher in self.watchers:
            watcher(event)

    def _say_plan(self) -> None:
        network = self.model.denoiser.network
        parameters = sum(p.numel() for p in network.parameters())
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        size = f"{parameters / 1e6:.2f} M parameters" + f" ({trained / 1e6:.2f} M trained)" * (trained < parameters)
        budget = f"{self.config.steps:,} steps" if self.config.steps else f"{self.config.minutes:g} min"
        self.console.say(
            f"plan       {size}, batch {self.config.batch}, {budget}, {self.config.precision} "
            f"on {self.device.type} ({torch.get_num_threads()} threads)"
        )
        self.console.say(f"run        {self.folder}")
        if self.unseen_are_seen:
            self.console.say("note       too few items to hold any out: the held-out loss is that of training items")

    def _train(self) -> None:
        looked, saved, seen = int(self._progress() * LOOKS), time.perf_counter(), time.perf_counter()
        pace = Pace()
        smooth: float | None = None
        held_out: float | None = None
        self._refuse_spent_budget()
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as rows:
            for metrics in fit(self.model.denoiser, self.feed, self.config, self.state, started=self.started):
                smooth = metrics.loss if smooth is None else 0.98 * smooth + 0.02 * metrics.loss
                clock = pace(self.feed.batch)
                text = f"step {metrics.step:,}  loss {smooth:.4f}  {words(clock)}"
                if held_out is not None:
                    text += f"  held-out {held_out:.4f}"
                facts, now = dataclasses.asdict(metrics), self._progress()
                rows.write(one_line({**facts, "clock": clock}) + "\n")
                self.console.progress("training", now, text, **facts, held_out=held_out, clock=clock)
                self._tell(Stepped(metrics, now, clock, self._first_average))
                self.snapshots.look(self.state.step, now, lambda: self.state.averages)
                if int(now * LOOKS) > looked and now < 1 and time.perf_counter() - seen > LOOK_SECONDS:
                    looked = int(now * LOOKS)
                    held_out = self._look(metrics, rows)
                    pace.pause()
                    seen = time.perf_counter()
                if time.perf_counter() - saved > CHECKPOINT_SECONDS or self.stop:
                    rows.flush()
                    self._save()
                    saved = time.perf_counter()
                self._heed()
        self.console.done()
        self.snapshots.finish(self.state.step, self.state.averages)
        self._save()

    def _refuse_spent_budget(self) -> None:
        spent = time.perf_counter() - self.started
        if self.config.minutes and not self.state.step and spent > 0.9 * 60 * self.config.minutes:
            raise UsageError(
                f"{spent:.0f} s went into reading the data: nothing is left of {self.config.minutes:g} min to train",
                help="give more minutes; what was read is kept and will be there at once",
            )

    def _heed(self) -> None:
        """Leave where that was asked for; everything is saved when this is called."""
        if self.stop:
            raise StoppedError(
                f"stopped at step {self.state.step:,} and saved",
                exit_code=self.stop.exit_code,
                help=f"langevin train --resume {shlex.quote(str(self.folder))}",
            )

    def _progress(self) -> float:
        if self.config.steps:
            return self.state.step / self.config.steps
        return self.state.elapsed / (60 * (self.config.minutes or 1))

    def _look(self, metrics: Metrics, rows: Any) -> float:
        """Held-out loss and a preview, with the first average."""
        level = self.loss(self.state.averages[self.config.ema[0]])
        row = {"step": metrics.step, "held_out": level.mean, "ratios": level.ratios, "levels": level.losses}
        rows.write(json.dumps(row) + "\n")
        self.console.say(f"step {metrics.step:>7,}  loss {metrics.loss:.4f}  held-out {level.mean:.4f}")
        previews = self.folder / "previews"
        previews.mkdir(exist_ok=True)
        target = previews / f"step-{metrics.step:09d}.png"
        sheet = preview(self.averaged_model())
        if not target.exists():
            sheet.save(target)
        self._tell(Looked(metrics.step, level, sheet))
        return level.mean

    def _use(self, weights: Mapping[str, Tensor]) -> None:
        """Put an average's weights into the copy that is measured and sampled."""
        own = dict(self.averaged.network.named_parameters())
        for name, value in weights.items():
            own[name].data = value.to(self.device)

    def _first_average(self) -> Model:
        self._use(self.state.averages[self.config.ema[0]])
        return self.averaged_model()

    def averaged_model(self) -> Model:
        """The model with the average that is in use; it shares the run's tensors."""
        return dataclasses.replace(self.model, denoiser=self.averaged, raw=self.model.denoiser.network.state_dict())

    def loss(self, weights: Mapping[str, Tensor]) -> LevelLoss:
        """The loss of these weights on held-out items; `averaged_model` has them afterwards."""
        self._use(weights)
        x0, cond = self.unseen
        return held_out_loss(self.averaged, x0, cond, self.law, self.weight, seed=self.config.seed)

    def _save(self) -> None:
        self._use(self.state.averages[self.config.ema[0]])
        checkpoint.save(self.folder, self.averaged_model(), self.state)

    def _publish(self) -> LevelLoss:
        """The average with the lowest held-out loss becomes the model."""
        most = averages.affordable(self.state.step, self.feed.batch, len(self.unseen[0]) * LEVELS)
        widths = averages.FEW[:most]
        every = averages.candidates(self.folder, self.state, widths, self.console.say)
        self.measured = averages.measured(every, self.loss)
        best = averages.best(self.measured)
        self._use(best.average.tensors)
        self.console.say(averages.table(self.measured))
        return best.level


def _drop_rows_after(path: Path, step: int) -> None:
    """Forget the metrics of steps that a killed run had done after its last checkpoint; they are done again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue  # the line that was being written
    beside = path.with_suffix(".jsonl.tmp")
    beside.write_text("".join(line + "\n" for line in kept), "utf-8")
    beside.replace(path)

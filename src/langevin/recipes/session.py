"""One sitting of a run: build what it trains, train, look from time to time, publish, measure."""

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from langevin.config import TrainConfig
from langevin.data.dataset import Dataset
from langevin.diffusion.times import TimeLaw
from langevin.diffusion.weights import Weight
from langevin.errors import DivergedError, MemoryShortError, UsageError
from langevin.evaluation.noise_levels import LEVELS, LevelLoss, held_out_loss
from langevin.model import Model
from langevin.networks import keep_memory
from langevin.recipes import averages, crew, forecast, init, plan, provenance, rescue, resume, shortage
from langevin.recipes.console import Console
from langevin.recipes.lookout import Lookout, conclusion, fitting
from langevin.recipes.looks import Looks
from langevin.recipes.outcome import Run, measure
from langevin.recipes.pace import Pace, words
from langevin.recipes.rows import Rows, read
from langevin.recipes.signals import StoppedError, StopRequest, at_each_evaluation, going_on
from langevin.recipes.watch import Began, Event, Finished, Looked, Stepped, Trained, Watcher
from langevin.registry import build
from langevin.training import Metrics, TrainState, checkpoint, fit, private
from langevin.training.distributed import World
from langevin.training.snapshots import Snapshots
from langevin.training.terms import Terms

HELD_OUT = 256
"""So many held-out items the loss is measured on."""
CHECKPOINT_SECONDS = 120.0
"""Between two checkpoints, where the settings say nothing."""


class Session:
    """One sitting of a run: builds what it trains, trains, looks from time to time, and finishes.

    Args:
        started: `time.perf_counter()` from which the budget counts.
        watchers: told of everything that happens; see `watch`.
        world: all processes of the run; each has a session, rank 0 runs it and the others follow (`crew`).
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
        world: World | None = None,
    ) -> None:
        keep_memory()
        self.folder, self.config, self.dataset = folder, config, dataset
        self.console, self.stop, self.started, self.watchers = console, stop, started, watchers
        self.world = world or World(device=torch.device(plan.device()))
        crew.refuse_unfit(config, self.world)
        self.device = self.world.device
        self.model = plan.make(config, dataset).to(self.device)
        if config.init is not None and self.world.is_main and checkpoint.newest(folder, console.say) is None:
            init.begin(self.model, config, console.say)
        self.averaged = copy.deepcopy(self.model.denoiser).eval().requires_grad_(False)
        at_each_evaluation(self.averaged, self._heed)
        self.crew = crew.Crew(self.world, self.averaged.network)
        self.trained = crew.spread(self.model.denoiser, config, self.world)
        self.state = TrainState.start(self.model.denoiser.network, config, self.world)
        self.feed = plan.feed(config, dataset, self.model.codec, self.state, self.world)
        self.weight = build(dict(config.weight or {}), Weight, foreign=True)
        self.law = build(dict(config.times), TimeLaw, foreign=True)  # as it began: the levels stay where they are
        self.unseen_are_seen = not len(dataset.held_out_indices)
        rows = dataset.train_indices if self.unseen_are_seen else dataset.held_out_indices
        spread = np.linspace(0, len(rows) - 1, min(len(rows), HELD_OUT)).astype(int)
        self.unseen = self.feed.items(rows[spread])
        self.measured: list[averages.Measured] = []
        self.raw: Mapping[str, Tensor] | None = None  # those of the best checkpoint, where it is published

    def run(self) -> Run:
        """Train to the end of the budget, publish, measure."""
        level = self.learn()
        done = measure(
            self.averaged_model(),
            self.dataset,
            self.folder,
            self.config,
            level,
            averages=self.measured,
            verdict=self.looks.verdict,
            done=provenance.words(self.folder, self.config, self.state, len(self.dataset.train_indices)),
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
        self._settle()
        budget = f"{self.config.steps} steps" if self.config.steps else f"{self.config.minutes} min"
        now, keep = self._progress(), self.config.snapshots
        self.snapshots = Snapshots(self.folder, self.state.step, now, self.console.say, budget=budget, keep=keep)
        self.console.say(plan.words(self.config, self.model.denoiser.network, self.device))
        if not self.state.step and (
            line := forecast.line(self.trained, self.feed, self.config, self.world, self.started)
        ):
            self.console.say(line)
        self.console.say(f"run        {self.folder}")
        if self.unseen_are_seen:
            self.console.say("note       too few items to hold any out: the held-out loss is that of training items")
        now = self.state.step, self._progress(), self._first_average
        self._tell(Began(self.folder, self.config, self.model, self.feed, self.law, self.unseen, *now))
        self._persist()
        level = self._publish()
        self._tell(Trained(self.state.step, level))
        return level

    def _settle(self) -> None:
        """Take on the terms of this sitting, where those of the one before were others."""
        state, config = self.state, self.config
        crew.refuse_unfit(config, self.world, state.guard.micro_batch)
        terms = Terms(self.feed.batch, config.steps, config.minutes, self.dataset.fingerprint)
        if state.terms is not None:
            items = len(self.dataset.train_indices)
            terms, notes = state.terms.then(
                terms, step=state.step, elapsed=state.elapsed, began=state.began, items=items
            )
            for note in notes:
                self.console.say(f"note       {note}")
        state.terms, self.feed = terms, dataclasses.replace(self.feed, offset=terms.offset)
        self.config = config.model_copy(update={"steps": terms.steps})
        resume.keep(self.folder, self.config)
        state.tell()

    def _tell(self, event: Event) -> None:
        for watcher in self.watchers:
            watcher(event)

    def _persist(self) -> None:
        """Train to the end; where numbers go wrong the run is sent back."""
        while True:
            try:
                return self._train()
            except DivergedError as error:
                self.console.done()
                if private.share(self.config, self.state) >= 1:
                    raise  # no step is left to take again
                row = rescue.send_back(self.folder, error, self.model, self.state, self._anew, self.console.say)
                self._settle()
                self._save()
                rescue.log(self.folder / "metrics.jsonl", row)
                self.started = time.perf_counter()
            except MemoryShortError:
                self.console.done()
                if self.world.parallel != "fsdp":  # other shards are with processes that wait for this one's step
                    self._save()
                self.console.say(shortage.table(self.config, self.model, self.state))
                raise

    def _anew(self) -> TrainState:
        model = plan.make(self.config, self.dataset).to(self.device)
        if self.config.init is not None:
            init.begin(model, self.config, self.console.say)
        return TrainState.start(model.denoiser.network, self.config)

    def steps(self) -> Iterator[Metrics]:
        """The steps of this sitting."""
        settings = {"started": self.started, "world": self.world, "stop": self.stop}
        return fit(self.trained, self.feed, self.config, self.state, **settings)

    def hear_numbers(self) -> None:
        """Take on what rank 0 has changed."""
        self.state.tell()
        if self.state.terms:
            self.feed = dataclasses.replace(self.feed, offset=self.state.terms.offset)

    def _train(self) -> None:
        saved, pace = time.perf_counter(), Pace()
        smooth: float | None = None
        held_out: float | None = None
        self._refuse_spent_budget()
        with Rows(self.folder / "metrics.jsonl", self.state.step) as rows:
            try:
                self._begin_to_look()
                if self.state.step and self.looks.due(self.state.step, self._progress()):
                    held_out = self._look(rows)  # it was stopped before it could
                for metrics in () if self._enough() else self.steps():
                    smooth = metrics.loss if smooth is None else 0.98 * smooth + 0.02 * metrics.loss
                    clock = pace(self.feed.batch)
                    text = f"step {metrics.step:,}  loss {smooth:.4f}  {words(clock)}"
                    if held_out is not None:
                        text += f"  held-out {held_out:.4f}"
                    facts, now = metrics.facts(), self._progress()
                    rows.stepped(metrics, clock)
                    self.console.progress("training", now, text, **facts, held_out=held_out, clock=clock)
                    rescue.tell(self.console.say, metrics)
                    self._tell(Stepped(metrics, now, clock, self._first_average))
                    self.snapshots.look(self.state.step, now, self._averages)
                    self.looks.curve.add(metrics.step, metrics.loss, metrics.lr)
                    if self.looks.due(metrics.step, now):
                        held_out = self._look(rows)
                        pace.pause()
                        if self._enough():
                            break
                    often, since = self.config.checkpoints, time.perf_counter() - saved
                    due = checkpoint.is_due(often, metrics.step, since, CHECKPOINT_SECONDS)
                    if due and not self.state.guard.doubtful:
                        rows.flush()
                        self._save()
                        saved = time.perf_counter()
                    self._heed()
                self.console.done()
                if self.looks.step < self.state.step:
                    self._look(rows)
                self.lookout.draw()
            except StoppedError:
                rows.flush()
                self._save()
                raise
            rows.flush()
        self.snapshots.finish(self.state.step, self._averages())
        self._save()

    def _refuse_spent_budget(self) -> None:
        spent = time.perf_counter() - self.started
        if self.config.minutes and not self.state.step and spent > 0.9 * 60 * self.config.minutes:
            raise UsageError(
                f"{spent:.0f} s went into reading the data and starting: nothing is left of {self.config.minutes:g} min to train",
                help="give more minutes; what was read is kept and will be there at once",
            )

    def _heed(self) -> None:
        """Leave where that was asked for."""
        self.stop.heed(f"stopped at step {self.state.step:,} and saved", help=going_on(self.folder))

    def _progress(self) -> float:
        assert self.state.terms is not None
        return self.state.terms.spent(self.state.step, self.state.elapsed)

    def _begin_to_look(self) -> None:
        config, before = self.config, (row for _, row in read(self.folder / "metrics.jsonl"))
        seconds = config.minutes and 60 * config.minutes
        self.looks = Looks(before, self.feed, self.law, self.weight, steps=config.steps, seconds=seconds)
        self.lookout = Lookout(self.folder, self.looks, self.console, config)

    def _look(self, rows: Rows) -> float:
        level, sheet = self.lookout(rows, self.state.step, self._progress(), self._first_average())
        if self.looks.improved and not self.state.guard.doubtful:
            rows.flush()
            self._save(level.mean)
        self._tell(Looked(self.state.step, level, sheet))
        return level.mean

    def _enough(self) -> bool:
        """Whether the run does nothing any more but overfit."""
        return self.config.stop_early and self.looks.stop

    def _use(self, weights: Mapping[str, Tensor]) -> None:
        """Put an average's weights into the copy that is measured and sampled."""
        own = dict(self.averaged.network.named_parameters())
        for name, value in weights.items():
            own[name].data = value.to(self.device)
        self.crew.stale = True

    def _averages(self) -> dict[float, dict[str, Tensor]]:
        return {sigma_rel: self.state.average_of(sigma_rel) for sigma_rel in self.state.averages}

    def _first_average(self) -> Model:
        self._use(self.state.average_of(self.config.ema[0]))
        return self.averaged_model()

    def averaged_model(self) -> Model:
        """The model with the average that is in use; it shares the run's tensors."""
        return dataclasses.replace(self.model, denoiser=self.averaged, raw=self.raw or self.state.weights())

    def loss(self, weights: Mapping[str, Tensor]) -> LevelLoss:
        """The loss of these weights on held-out items; `averaged_model` has them afterwards."""
        self._use(weights)
        x0, cond = self.unseen
        seed, law, weight = self.config.seed, self.law, self.weight
        return fitting(
            lambda batch: held_out_loss(self.averaged, x0, cond, law, weight, seed=seed, batch=batch), self.console.say
        )

    def _save(self, held_out: float | None = None) -> None:
        self._use(self.state.average_of(self.config.ema[0]))
        keep = self.config.checkpoints.keep
        checkpoint.save(self.folder, self.averaged_model(), self.state, keep=keep, held_out=held_out)

    def _publish(self) -> LevelLoss:
        """The average with the lowest held-out loss becomes the model."""
        most = averages.affordable(self.state.step, self.feed.batch, len(self.unseen[0]) * LEVELS)
        widths = averages.FEW[:most]
        every = averages.candidates(self.folder, self.state, widths, self.console.say)
        self.measured = averages.measured(every, self.loss)
        best = averages.best(self.measured)
        self._use(best.average.tensors)
        self.raw = best.average.raw
        self.console.say(averages.table(self.measured))
        for line in conclusion(self.looks, self.config, self._progress()):
            self.console.say(line)
        if spent := private.spent(self.config, self.state, len(self.dataset.train_indices)):
            self.console.say(f"private    {spent}")
        return best.level

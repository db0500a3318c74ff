"""Random histories of one run: whatever was done to it, a sitting goes on from the newest sound checkpoint with its bits."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from langevin import data, store
from langevin.config import parse, with_settings
from langevin.recipes import plan
from langevin.training import TrainState, checkpoint, fit
from langevin.training.feed import Feed
from tests.faults import tiny
from tests.faults.failing import FailingDisk

LAST = 24
Bits = dict[str, torch.Tensor]


class Killed(BaseException):
    """In the place of a process that ends without a word."""


class Sitting:
    """A run in memory."""

    def __init__(self, path: Path) -> None:
        dataset = data.open(path)
        values = {"data": {"path": str(path)}, "steps": LAST}
        config = plan.resolve(parse(with_settings(values, tiny.SETTINGS)), dataset)
        self.model = plan.make(config, dataset)
        self.state = TrainState.start(self.model.denoiser.network, config)
        feed = Feed(dataset, self.model.codec, dataset.train_indices, config.seed, config.batch or 1)
        self.steps = fit(self.model.denoiser, feed, config, self.state)

    def bits(self) -> Bits:
        """All tensors, copied."""
        every = {**self.state.tensors(), **{f"raw.{k}": v for k, v in self.state.network.state_dict().items()}}
        return {k: v.clone() for k, v in every.items()}


class Histories(RuleBasedStateMachine):
    """What may befall a run."""

    path: Path
    course: list[Bits]

    @initialize()
    def begin(self) -> None:
        """An empty folder."""
        self.run = Path(tempfile.mkdtemp(dir=self.path.parent))
        self.sound: set[int] = set()
        self.go_on()

    @rule()
    def go_on(self) -> None:
        """A new process finds what there is."""
        self.now = Sitting(self.path)
        newest = checkpoint.newest(self.run, lambda text: None)
        assert (0 if newest is None else int(newest.name[5:])) == max(self.sound, default=0)
        if newest is not None:
            checkpoint.restore(newest, self.now.model, self.now.state)

    @rule(count=st.integers(1, 3))
    def train(self, count: int) -> None:
        """A few steps."""
        for _ in range(min(count, LAST - self.now.state.step)):
            next(self.now.steps)

    @rule(loss=st.none() | st.floats(0.1, 1))
    def save(self, loss: float | None) -> None:
        """A checkpoint; what is kept are the newest two and the best."""
        if self.now.state.step:
            checkpoint.save(self.run, self.now.model, self.now.state, held_out=loss)
            self.sound = {int(f.name[5:]) for f in checkpoint.folders(self.run) if checkpoint.is_sound(f)}
            assert self.now.state.step in self.sound

    @rule(k=st.integers(1, 160), tear=st.booleans())
    def killed_while_saving(self, k: int, tear: bool) -> None:
        """The process ends at its k-th call to the disk; nothing that was sound is gone but what was to be deleted."""

        def kill() -> None:
            raise Killed

        before, step = set(self.sound), self.now.state.step
        try:
            with FailingDisk(self.run, k, forever=True, then=kill, tear=tear):
                checkpoint.save(self.run, self.now.model, self.now.state)
        except Killed:
            pass
        self.sound = {int(f.name[5:]) for f in checkpoint.folders(self.run) if checkpoint.is_sound(f)}
        assert step in self.sound or before <= self.sound | {step}
        self.go_on()

    def _newest(self) -> Path | None:
        return next((f for f in checkpoint.folders(self.run) if int(f.name[5:]) in self.sound), None)

    @precondition(lambda self: self.sound)
    @rule(which=st.sampled_from(checkpoint.PARTS), place=st.integers(0, 10**6))
    def flip(self, which: str, place: int) -> None:
        """One byte of the newest checkpoint, then a new process."""
        newest = self._newest()
        assert newest is not None
        body = bytearray((newest / which).read_bytes())
        body[place % len(body)] ^= 1
        (newest / which).write_bytes(body)
        self.sound.discard(int(newest.name[5:]))
        self.go_on()

    @precondition(lambda self: self.sound)
    @rule()
    def delete(self) -> None:
        """The newest checkpoint, then a new process."""
        newest = self._newest()
        assert newest is not None
        shutil.rmtree(newest)
        self.sound.discard(int(newest.name[5:]))
        self.go_on()

    @rule()
    def sweep(self) -> None:
        """All that is only half there."""
        store.clean(self.run / "checkpoints", alone=True)
        assert not list(self.run.rglob(".tmp-*"))

    @invariant()
    def is_the_undisturbed_run_at_this_step(self) -> None:
        """To the bit."""
        if hasattr(self, "now"):
            found, expected = self.now.bits(), self.course[self.now.state.step]
            assert found.keys() == expected.keys()
            assert [k for k in found if not torch.equal(found[k], expected[k])] == []


@pytest.mark.parametrize(
    ("examples", "length"), [(6, 12), pytest.param(200, 40, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_random_histories(tmp_path, examples, length):
    torch.set_num_threads(1)
    path = tiny.pictures(tmp_path)
    whole = Sitting(path)
    course = [whole.bits()]
    for _ in whole.steps:
        course.append(whole.bits())  # noqa: PERF401
    assert len(course) == LAST + 1
    machine: Any = type("OneRun", (Histories,), {"path": path, "course": course})
    how = settings(
        max_examples=examples,
        stateful_step_count=length,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=how)

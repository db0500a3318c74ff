"""`langevin train`: from a path to a trained model, pictures to look at and figures to believe.

runs/NAME-k/   config.yaml  data.txt  rejects.csv  first-batch.png  metrics.jsonl  run.log
               previews/  checkpoints/  model/  samples.png  real-and-generated.png  figures.json  training.gif
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from langevin.config import TrainConfig, parse
from langevin.disk import broken_promises, disk_errors
from langevin.errors import DataError, UsageError
from langevin.recipes import crew, folders, forecast, launch, plan, provenance
from langevin.recipes import resume as resuming
from langevin.recipes.animate import animation
from langevin.recipes.asked import config_of, nested
from langevin.recipes.console import Console
from langevin.recipes.first import first_batch
from langevin.recipes.lock import lock
from langevin.recipes.outcome import Run
from langevin.recipes.reading import read
from langevin.recipes.session import Session
from langevin.recipes.signals import StopRequest, going_on, stop_requests
from langevin.recipes.tracking import Tracking, kinds
from langevin.training.determinism import deterministic
from langevin.training.distributed import World, join


def train(
    path: "str | Path | None" = None,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    size: int | None = None,
    out: str | None = None,
    seed: int | None = None,
    config: "str | Path | Mapping[str, Any] | None" = None,
    settings: Mapping[str, str] | None = None,
    resume: "str | Path | None" = None,
    accept_changed_data: bool = False,
    init: "str | Path | None" = None,
    init_partial: bool = False,
    freeze: "tuple[str, ...] | list[str]" = (),
    runs: "str | Path" = "runs",
    parallel: str | None = None,
    track: Sequence[str] | None = None,
    console: Console | None = None,
    started: float | None = None,
    **options: Any,
) -> Run:
    """Train a diffusion model on a person's own data.

    Args:
        path: the data: a folder, metadata folder, zip, npz, npy, idx file or folder, or `digits`.
        minutes: wall-clock budget of the training, from `started` on; 10 where neither it nor `steps` is given.
        steps: number of steps instead.
        size: side of the pictures; chosen from the data where it is not given.
        out: name of the run; its folder is runs/NAME-1, or the next number that is free.
        seed: of everything random.
        config: a YAML file or nested values, below the arguments.
        settings: dotted settings with their values as text, above everything: {"optimizer.lr": "1e-3"}.
        resume: a run's folder, to go on with what it was; nothing else is needed. A larger budget (of the whole run) trains
            it longer; `recipes.resume` says which settings may differ.
        accept_changed_data: go on though the data are not those that the run began with, with an epoch of the new ones.
        init: a run, model or safetensors file whose weights are the first ones (`RUN:raw` for those that are no average); of a
            model also network, schedule, parametrization and codec, where nothing else is said.
        init_partial: whether what does not fit there may start fresh.
        freeze: patterns of parameter names that are not trained, such as "down.*".
        parallel: under torchrun, "ddp" or "fsdp": how weights are spread over the processes. Rank 0 alone comes back from this
            function; in the others it ends with SystemExit.
        track: trackers that draw the run's course, such as "tensorboard".
        started: `time.perf_counter()` of a new run's beginning; this call where it is not given.
        options: further settings of the data: fit, matte, frames, allow_rejects, flip.

    Returns:
        the run; its folder holds the same.

    Raises:
        LangevinError: with the exit code that a command would end with.
    """
    started, console = time.perf_counter() if started is None else started, console or Console()
    given = {"minutes": minutes, "steps": steps, "seed": seed, "track": track or None}
    given |= {"init": None if init is None else str(init), "init_partial": init_partial or None}
    given |= {"freeze": tuple(freeze) or None, "parallel": {"name": parallel} if parallel else None}
    options = {"size": size, **options}
    if accept_changed_data and resume is None:
        raise UsageError("a new run has no former data", help="leave --accept-changed-data out")
    if out and resume is not None:
        raise UsageError("a resumed run keeps its name", help="leave --out out")
    with ExitStack() as stack:
        stack.enter_context(disk_errors(Path(runs if resume is None else resume)))
        stop = stack.enter_context(stop_requests(outlive_terminal=True))  # first, for a launcher may ask while all ends
        world = stack.enter_context(join(plan.device()))
        if not world.is_main:
            raise SystemExit(_follow(world, stop))
        stack.enter_context(console)
        if resume is None and launch.is_restart():
            name = _name(out, config_of(path, config, settings, given, options))
            if begun := launch.interrupted(Path(runs), name):
                resume, path, config, settings, given, options = begun, None, None, None, {}, {}
        if resume is not None:
            folder = folders.found(Path(resume), "config.yaml", "run to resume")
            stack.enter_context(lock(folder, console.say))
            console.keep_log(folder / "run.log")
            settled, notes = resuming.settled(folder, nested(path, config, given, options), settings or {})
            for note in notes:
                console.say(f"note       {note}")
            kinds(settled.track)
            resuming.require_data(folder, settled)
            dataset = read(settled, console, stop, again=going_on(folder), world=world)
            if note := provenance.go_on(folder, dataset, accept=accept_changed_data):
                console.say(f"note       {note}")
            if aside := resuming.put_aside(folder):
                console.say(f"note       what the run had made is now in {aside}")
            started = time.perf_counter()  # a resumed run does not pay for reading again
        else:
            settled = config_of(path, config, settings, given, options)
            name = _name(out, settled)  # this and an extra that is not installed are told before anything is read
            kinds(settled.track)
            dataset = read(settled, console, stop, again="the same command begins again", world=world)
            settled = forecast.resolve(settled, dataset, world, started)
            plan.check(settled, dataset)
            folder = folders.new(Path(runs), name)
            stack.enter_context(lock(folder, console.say))
            launch.remember(folder)
            provenance.begin(folder, dataset)
            resuming.keep(folder, settled)  # last: with it there is a run to resume
            console.keep_log(folder / "run.log")
        for broken in broken_promises(folder):
            console.say(f"note       this disk: {broken}")
        stack.enter_context(deterministic(settled.deterministic))
        tracking = stack.enter_context(Tracking(folder, settled, console.say))
        watchers = (first_batch, tracking, animation)
        world = world.under(settled.parallel and settled.parallel.name)
        facts = {"config": settled.model_dump(mode="json"), "folder": str(folder), "data": dataset.fingerprint}
        world.share(lambda: facts)
        world.advise(going_on(folder))
        with crew.leading(world):
            return Session(folder, settled, dataset, console, stop, started, watchers, world).run()


def _name(out: str | None, config: TrainConfig) -> str:
    return folders.checked(out) if out else folders.name_for(config.data.path)


def _follow(world: World, stop: StopRequest) -> int:
    """What all processes but rank 0 do; the exit code."""
    console, begun = Console("quiet"), time.perf_counter()
    dataset = read(None, console, StopRequest(), world=world)
    facts = world.share(dict)
    if facts["data"] != dataset.fingerprint:
        raise DataError("the data here are not those of rank 0", where=dataset.audit.source, help="copy them again")
    settled = parse(facts["config"])
    world = world.under(settled.parallel and settled.parallel.name)
    world.advise(going_on(Path(facts["folder"])))
    with deterministic(settled.deterministic):
        return crew.follow(Session(Path(facts["folder"]), settled, dataset, console, stop, begun, world=world))

"""The command line: its commands, and how their errors are told.

Each command is thin: it calls a recipe and ends with the next command.
"""

import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from langevin import __version__
from langevin.cli import checks, measuring, samples, training
from langevin.disk import REMEDIES
from langevin.errors import LangevinError

DEBUG = "--debug"

app = App(
    name="langevin",
    help="Diffusion models on your own data: from a folder to a trained, measured, few-step model.",
    version=__version__,
    help_epilogue="Start with: langevin demo    then: langevin train FOLDER --minutes 10",
)
data = App(name="data", help="Look at data before training.")
data.command(checks.data_check, name="check")
app.command(data)
for command in (
    training.demo,
    training.train,
    samples.sample,
    training.classifier,
    training.search,
    samples.animate,
    training.ema,
    samples.tune,
    measuring.curve,
    checks.evaluate,
    checks.checkpoints,
    checks.doctor,
    checks.check,
):
    app.command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    _open_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def _open_streams() -> None:
    """Where a standard stream was closed the next file opened would get its number, and lines and warnings with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def run(arguments: list[str]) -> int:
    """The exit code: 0 ok, 1 bug, 2 usage, 3 data, 4 diverged, 5 memory, 6 disk, 7 refused, 75 pre-empted, 130 interrupted."""
    debug = DEBUG in arguments
    arguments = [a for a in arguments if a != DEBUG]
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _tell(" ".join(str(error).split()), 2)
    except LangevinError as error:
        if debug:
            traceback.print_exc()
        return _tell(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _tell("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error) and "can't allocate" not in str(error):
            raise
        return _tell("out of memory   help: a smaller --size, or --set micro_batch=8", 5)
    except OSError as error:
        if debug or error.errno not in REMEDIES:
            raise
        where = f"   {error.filename}" if error.filename else ""
        return _tell(
            f"the disk refuses: {error.strerror}{where}   help: {REMEDIES[error.errno]}; what was saved is intact", 6
        )
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def _tell(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code

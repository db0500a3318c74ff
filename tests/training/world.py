"""Processes of one run, for tests: torchrun on this machine, over gloo."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

TINY = "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}"


def start(count: int, *arguments: str, restarts: int = 0, module: str = "langevin", env: dict[str, str] | None = None):
    """`torchrun -m langevin ARGUMENTS` in the working folder; one process alone is started without torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", f"--max-restarts={restarts}"]
    launcher += [f"--master-port={port}"]
    command = [sys.executable, *(launcher if count > 1 else ()), "-m", module, *arguments]
    paths = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[2])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **(env or {})}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )


def finish(process: subprocess.Popen, seconds: float = 120) -> str:
    """What it said; it must end by itself."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it hangs; {shlex.join(process.args)} said: {process.communicate()[0]}") from None


def train(count: int, path: Path, out: str, *arguments: str, **settings) -> str:
    """A run of that many processes to its end."""
    quick = ["--set", f"network={TINY}", "--set", "precision=float32", "--set", "batch=10"]
    process = start(count, "train", str(path), "--out", out, *quick, *arguments, **settings)
    said = finish(process)
    assert process.returncode == 0, said
    return said


def ranks(process: subprocess.Popen) -> list[int]:
    """Process ids of the workers of a torchrun, in the order of their ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            facts = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(facts[1]) == process.pid:
                own = dict(pair.split("=", 1) for pair in (folder / "environ").read_text().split("\0") if "=" in pair)
                found[int(own["RANK"])] = int(folder.name)
        except (OSError, KeyError, ValueError):
            continue
    return [found[rank] for rank in sorted(found)]

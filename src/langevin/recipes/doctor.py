"""What may stand in the way on this machine, and what to do about it. `langevin doctor`.

Every check is a function from what it looks at to findings; none of them changes anything, and the only network, compiler
or foreign package that they touch is torch itself and, in a process of its own, torchvision's import.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from langevin.data.cache import root as cache_root
from langevin.recipes.machine import Memory, cores, memory, multiplies_bfloat16

State = Literal["ok", "warn", "bad"]
GIB = 2**30
IMPORT_TIMEOUT = 120  # seconds for torchvision's import


@dataclass(frozen=True)
class Finding:
    """One thing looked at. state: ok; warn = works, but slower or not for long; bad = will fail. advice: what to do."""

    what: str
    value: str
    state: State = "ok"
    advice: str = ""


def diagnose(folder: str | Path = ".", cache: str | Path | None = None) -> list[Finding]:
    """Everything worth knowing about this machine for training in `folder`, with decoded data cached in `cache`."""
    found = [python()]
    try:
        import torch
    except (ImportError, OSError) as error:
        found.append(Finding("torch", f"does not import: {error}", "bad", "pip install torch"))
    else:
        found += [*device(torch), threads(torch.get_num_threads(), cores()), vectors(torch)]
    found += [memory_left(memory()), allocator()]
    found += [disk("disk, working folder", Path(folder)), disk("disk, cache", cache_root(cache))]
    return [*found, torchvision(), *extras()]


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    text = ".".join(map(str, version))
    return (
        Finding("python", text)
        if version >= (3, 11)
        else Finding("python", text, "bad", "make a virtual environment with Python 3.11 or later")
    )


def device(torch: ModuleType, driver: Path = Path("/proc/driver/nvidia/version")) -> list[Finding]:
    """torch's version and the devices it sees; whether its build fits the machine."""
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    build = f"ROCm {torch.version.hip}" if getattr(torch.version, "hip", None) else build
    version = Finding("torch", f"{torch.__version__} ({build})")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [
            version,
            *(Finding(f"cuda:{i}", f"{p.name}, {p.total_memory / GIB:.0f} GiB") for i, p in enumerate(names)),
        ]
    if torch.backends.mps.is_available():
        return [version, Finding("device", "mps (Apple GPU)")]
    if build != "CPU" and driver.exists():
        advice = "torch cannot use it: compare its CUDA version with `nvidia-smi`; CUDA_VISIBLE_DEVICES may hide it"
        return [version, Finding("device", "cpu, with a GPU in the machine", "warn", advice)]
    if build != "CPU":
        advice = "works; the CPU build of the same version is several gigabytes smaller"
        return [Finding(version.what, version.value, "warn", advice), Finding("device", "cpu")]
    if driver.exists():
        advice = "install a CUDA build of torch to use it"
        return [version, Finding("device", "cpu, with a GPU in the machine", "warn", advice)]
    return [version, Finding("device", "cpu")]


def threads(number: int, available: float) -> Finding:
    """torch's threads against the cores that it may use; a quota of 1.5 cores is best served by 2 threads at most."""
    value = f"{number} on {available:g} cores"
    best = max(1, round(available))
    if number > max(1.0, available + 0.5):
        return Finding("threads", value, "warn", f"more threads than cores wait for each other: OMP_NUM_THREADS={best}")
    if number < available / 2 and available >= 2 and "OMP_NUM_THREADS" in os.environ:
        return Finding("threads", value, "warn", f"cores lie idle: OMP_NUM_THREADS={best}")
    return Finding("threads", value)


def vectors(torch: ModuleType, cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Whether arithmetic is wide, and whether bf16 has hardware."""
    kind = torch.backends.cpu.get_cpu_capability()
    has_bf16 = multiplies_bfloat16(cpuinfo)
    value = f"{platform.machine()} {kind}, bf16 {'in hardware' if has_bf16 else 'not in hardware'}"
    if kind in ("DEFAULT", "NO AVX") and platform.machine().lower() in ("x86_64", "amd64"):
        return Finding("vectors", value, "warn", "no AVX2: several times slower than a processor of the last ten years")
    return Finding(
        "vectors", value, advice="" if has_bf16 else "training takes float32 on this CPU; bf16 would be far slower"
    )


def memory_left(found: Memory | None) -> Finding:
    if found is None:
        return Finding("memory", f"unknown on {platform.system()}")
    value = f"{found.free / GIB:.1f} of {found.total / GIB:.1f} GiB free"
    if found.free < GIB:
        return Finding("memory", value, "bad", "close other programs: training starts with about 1 GiB")
    if found.free < 4 * GIB:
        return Finding("memory", value, "warn", "keep pictures at 32 pixels and batches at 64 or below")
    return Finding("memory", value)


def allocator(maps: Path = Path("/proc/self/maps")) -> Finding:
    """Whose malloc this is; glibc's returns large blocks to the system at every step unless it is told not to."""
    library, version = platform.libc_ver()
    try:
        loaded = re.search(r"jemalloc|tcmalloc|mimalloc", maps.read_text())
    except OSError:
        loaded = None
    if loaded:
        return Finding("malloc", loaded[0])
    if library == "glibc":
        return Finding("malloc", f"glibc {version}; training tells it to keep what is freed")
    return Finding("malloc", f"the system's ({platform.system()})")


def disk(what: str, folder: Path) -> Finding:
    """Space and permission where a folder is or would be made."""
    there = folder.expanduser().absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    value = f"{free / GIB:.1f} GiB free at {folder}"
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(what, f"{there} cannot be written", "bad", "name another folder, or mend its permissions")
    if free < GIB / 2:
        return Finding(what, value, "bad", "free some space: a run keeps three checkpoints and its data once, decoded")
    if free < 5 * GIB:
        return Finding(what, value, "warn", "enough for small sets; a large one is kept once more, decoded")
    return Finding(what, value)


def torchvision(python: str = sys.executable, timeout: float = IMPORT_TIMEOUT) -> Finding:
    """Whether an installed torchvision imports; tried in another process, since a broken one can break torch in ours."""
    try:
        version = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return Finding("torchvision", "not installed; langevin never needs it")
    try:
        done = subprocess.run(
            [python, "-c", "import torchvision"], capture_output=True, text=True, errors="replace", timeout=timeout
        )
        why = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        why = f"no answer within {timeout:g} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
    if not why:
        return Finding("torchvision", f"{version} imports; langevin never needs it")
    advice = "langevin never needs it, but packages that find it may fail: pip uninstall torchvision"
    return Finding("torchvision", f"{version} does not import: {why}", "warn", advice)


def extras(distribution: str = "langevin") -> list[Finding]:
    """Which optional parts are there, by what the package itself declares; missing ones are no fault."""
    try:
        metadata = importlib.metadata.metadata(distribution)
    except importlib.metadata.PackageNotFoundError:
        return [Finding("extras", "not known: langevin is not installed here", "warn", "pip install .")]
    found = []
    for extra in sorted(metadata.get_all("Provides-Extra") or []):
        wanted = [
            re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            for requirement in metadata.get_all("Requires-Dist") or []
            if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", requirement)
        ]
        missing = [name for name in wanted if name != distribution and not _is_installed(name)]
        advice = f"pip install '{distribution}[{extra}]'" if missing else ""
        found.append(
            Finding(f"extra `{extra}`", f"missing {', '.join(missing)}" if missing else "there", advice=advice)
        )
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def table(findings: Sequence[Finding]) -> str:
    """The findings as plain text, one a line, its advice on the next."""
    width = max((len(f.what) for f in findings), default=0)
    lines = []
    for f in findings:
        lines.append(f"{f.state:4}  {f.what:{width}}  {f.value}")
        if f.advice:
            lines.append(f"{'':4}  {'':{width}}  -> {f.advice}")
    return "\n".join(lines)

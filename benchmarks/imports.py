"""Import time and memory, whole process, side by side.

    python benchmarks/imports.py [--rounds 7]

Every case runs in a fresh process, in turn, after one round that warms the page cache; medians. Prints markdown.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

OURS = "import langevin.networks, langevin.diffusion, langevin.solvers"
CASES = {
    "python": "pass",
    "torch": "import torch",
    "`import langevin`": "import langevin",
    "`langevin --help`": "import sys; sys.argv = ['langevin', '--help']; from langevin.cli import main; main()",
    "langevin: networks, diffusion, solvers": OURS,
    "langevin: the same and a model": f"{OURS}, langevin.model",
    "diffusers: UNet2DModel, DDPMScheduler": "from diffusers import UNet2DModel, DDPMScheduler",
    "diffusers: the same and DDPMPipeline": "from diffusers import UNet2DModel, DDPMScheduler, DDPMPipeline",
    "denoising_diffusion_pytorch": "import denoising_diffusion_pytorch",
    "azula: sample, noise, denoise, nn.unet": "import azula.sample, azula.noise, azula.denoise, azula.nn.unet",
    "k_diffusion": "import k_diffusion",
    "smalldiffusion": "import smalldiffusion",
}


def once(code: str) -> tuple[float, float, int]:
    """Seconds, peak MB, exit status."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    return time.perf_counter() - start, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    works = {name: once(code)[2] == 0 for name, code in CASES.items()}
    seen: dict[str, list[tuple[float, float, int]]] = {name: [] for name, ok in works.items() if ok}
    for r in range(rounds):
        for name in list(seen) if r % 2 == 0 else list(seen)[::-1]:
            seen[name].append(once(CASES[name]))
    middle = {n: tuple(statistics.median(s[i] for s in runs) for i in (0, 1)) for n, runs in seen.items()}
    base = middle.get("torch", (0.0, 0.0))
    print("| import | seconds | over torch | peak MB | over torch |\n|---|---|---|---|---|")
    for name in CASES:
        if name in middle:
            s, mb = middle[name]
            print(f"| {name} | {s:.2f} | {s - base[0]:+.2f} | {mb:.0f} | {mb - base[1]:+.0f} |")
        else:
            print(f"| {name} | not installed, or fails to import |")


if __name__ == "__main__":
    main()

"""Trajectories equal k-diffusion's samplers on the same denoiser and noise; runs where k-diffusion is installed."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from langevin.diffusion.schedules import VE
from langevin.exact import oracles
from langevin.interop.k_diffusion import to_callable
from langevin.solvers import Solver, trajectory
from langevin.solvers.dpm_2 import DPM2
from langevin.solvers.dpm_adaptive import DPMAdaptive
from langevin.solvers.dpmpp_2s import DPMpp2S
from langevin.solvers.dpmpp_sde import DPMppSDE
from langevin.solvers.edm import EDM
from langevin.solvers.euler import Euler
from langevin.solvers.euler_ancestral import EulerAncestral

peer = pytest.importorskip("k_diffusion.sampling", reason="k-diffusion is not installed", exc_type=ImportError)

F64 = torch.float64
N = 24
TIMES = torch.cat([oracles.log_uniform(VE(), N - 1, 80.0, 0.002), torch.zeros(1, dtype=F64)])
SIGMAS = VE().sigma(TIMES)
WITHIN = {"s_tmin": 0.01, "s_tmax": 50.0, "s_noise": 1.003}

CASES: list[tuple[str, dict[str, Any], Solver[Any]]] = [
    ("sample_euler", {}, Euler()),
    ("sample_euler_ancestral", {"eta": 0.7, "s_noise": 1.1}, EulerAncestral(0.7, 1.1)),
    ("sample_euler_ancestral", {"eta": 1.3}, EulerAncestral(1.3)),
    ("sample_heun", {"s_churn": 8.0 * N / (N - 1), **WITHIN}, EDM(8.0, **WITHIN)),
    ("sample_dpm_2", {}, DPM2()),
    ("sample_dpm_2_ancestral", {}, DPM2(1.0)),
    ("sample_dpmpp_2s_ancestral", {"eta": 0.0}, DPMpp2S()),
    ("sample_dpmpp_2s_ancestral", {"eta": 0.8}, DPMpp2S(0.8)),
    ("sample_dpmpp_sde", {}, DPMppSDE()),
    ("sample_dpmpp_sde", {"eta": 0.5, "r": 0.4}, DPMppSDE(0.5, r=0.4)),
]


def drawn(seed: int) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


def one_path(x: Tensor, noise: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The noises of both stages of `sample_dpmpp_sde`, from the two draws of our step: stage, then step."""

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield noise(x), noise(x)

    draws, waiting, after = pairs(), [], iter(SIGMAS[1:])

    def sampler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        if waiting:
            return waiting.pop()
        whole, other = next(draws)
        waiting.append(whole)
        end = next(after)
        part = ((sigma_next**-2 - sigma**-2) / (end**-2 - sigma**-2)).item()
        return math.sqrt(part) * whole + math.sqrt(1 - part) * other

    return sampler


@pytest.mark.parametrize(("name", "settings", "solver"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_equals_k_diffusion(name: str, settings: dict[str, Any], solver: Solver[Any], monkeypatch: Any) -> None:
    denoiser, x = oracles.oracle_a(VE()), 4 * oracles.starts(VE(), 20)
    theirs, ours = drawn(1), drawn(1)
    if name == "sample_dpmpp_sde":
        settings = {**settings, "noise_sampler": one_path(x, theirs)}
    elif "ancestral" in name:
        settings = {**settings, "noise_sampler": lambda sigma, sigma_next: theirs(x)}
    else:  # it draws in every step, ours where it churns
        queue = iter(theirs(x) for _ in range(N))
        inside = [WITHIN["s_tmin"] <= s <= WITHIN["s_tmax"] for s in SIGMAS[:-1].tolist()]
        turn = iter(inside)
        monkeypatch.setattr(torch, "randn_like", lambda like: next(queue) if next(turn) else like)
    expected = getattr(peer, name)(to_callable(denoiser), x, SIGMAS, disable=True, **settings)
    monkeypatch.undo()
    *_, step = trajectory(denoiser, solver, x, TIMES, noise=lambda index: ours)
    torch.testing.assert_close(step.x, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("start", [-1.2, 0.1, 0.8])
@pytest.mark.parametrize("tolerance", [0.05, 1e-4])
def test_adaptive_steps_are_its_own_for_one_sample(start: float, tolerance: float) -> None:
    denoiser, x = oracles.oracle_a(VE()), torch.full((1, 1), 80 * start, dtype=F64)
    settings = {"rtol": tolerance, "atol": tolerance}
    theirs, ends = peer.DPMSolver(to_callable(denoiser)), -SIGMAS[[0, -2]].log()
    expected, info = theirs.dpm_solver_adaptive(x, *ends, **settings)
    calls: list[int] = []
    denoiser.register_forward_pre_hook(lambda *args: calls.append(1))
    *_, step = trajectory(denoiser, DPMAdaptive(**settings), x, TIMES[[0, -2]])
    torch.testing.assert_close(step.x, expected, rtol=1e-6, atol=1e-6)  # its tolerances are float32
    assert len(calls) == info["nfe"]

"""Steps equal diffusers' schedulers on the same toy network; runs where diffusers is installed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion
from langevin.diffusion.schedules import Tabulated
from langevin.solvers import trajectory
from langevin.solvers.ancestral import Ancestral
from langevin.solvers.ddim import DDIM
from langevin.solvers.dpm_2 import DPM2
from langevin.solvers.dpmpp import DPMpp
from langevin.solvers.euler import Euler
from langevin.solvers.euler_ancestral import EulerAncestral
from langevin.solvers.grids import Trailing
from langevin.solvers.heun import Heun

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
TRAILING = {"timestep_spacing": "trailing"}
PLAIN = {"clip_sample": False}
CASES: list[tuple[str, Any, str, dict[str, Any], dict[str, Any]]] = [
    ("ddim", DDIM(), "DDIMScheduler", PLAIN, {}),
    ("ddim eta 1", DDIM(1.0), "DDIMScheduler", PLAIN, {"eta": 1.0}),
    ("ddim eta 0.4", DDIM(0.4), "DDIMScheduler", PLAIN, {"eta": 0.4}),
    ("ddpm small", Ancestral("small"), "DDPMScheduler", {**PLAIN, "variance_type": "fixed_small"}, {}),
    ("ddpm large", Ancestral("large"), "DDPMScheduler", {**PLAIN, "variance_type": "fixed_large"}, {}),
    ("dpm-solver++", DPMpp(), "DPMSolverMultistepScheduler", {"solver_order": 2, "final_sigmas_type": "zero"}, {}),
    ("heun", Heun(), "HeunDiscreteScheduler", {}, {}),
    ("euler", Euler(), "EulerDiscreteScheduler", {}, {}),
    ("euler ancestral", EulerAncestral(), "EulerAncestralDiscreteScheduler", {}, {}),
    ("dpm 2", DPM2(), "KDPM2DiscreteScheduler", {}, {}),
    ("dpm 2 ancestral", DPM2(1.0), "KDPM2AncestralDiscreteScheduler", {}, {}),
]


def eps_hat(x: Tensor, i: Tensor) -> Tensor:
    """A toy network in the index of the table."""
    return torch.tanh(1.3 * x + 0.2 * x.flip(1)) * (0.6 + 0.4 * torch.cos(i / 300)) + 0.1


class Toy(Denoiser):
    def __init__(self) -> None:
        super().__init__()
        self.process = GaussianDiffusion(Tabulated.linear())

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
        alpha, sigma = self.process.coefficients(t, x_t)
        return Gaussian((x_t - sigma * eps_hat(x_t, 1000 * t - 1)) / alpha)


@pytest.mark.parametrize("num_steps", [10, 20, 50])
@pytest.mark.parametrize(("solver", "scheduler", "settings", "step"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_equals_diffusers(solver: Any, scheduler: str, settings: Any, step: Any, num_steps: int) -> None:
    theirs = getattr(diffusers, scheduler)(**BETAS, **TRAILING, **settings)
    theirs.set_timesteps(num_steps)
    x = start = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scaled = scheduler[:4] in ("Heun", "Eule", "KDPM")  # these hold x / alpha
    denoiser, times = Toy(), Trailing()(Tabulated.linear(), num_steps)
    if scaled:
        x = x / denoiser.process.schedule.alpha(times[0])
    generator = torch.Generator().manual_seed(1)
    if scheduler[:4] in ("DDIM", "DDPM") or "Ancestral" in scheduler:
        step = {**step, "generator": generator}
    expected = []
    for k, i in enumerate(theirs.timesteps):
        given = theirs.scale_model_input(x, i)
        x = theirs.step(eps_hat(given.double(), i.double()), i, x, **step).prev_sample.double()
        if not scaled:
            expected.append(x)
        elif (
            scheduler[:5] == "Euler" or k % 2 == 1 or k == len(theirs.timesteps) - 1
        ):  # methods of two stages take two calls a step, but for the last
            expected.append(x * denoiser.process.schedule.alpha(times[len(expected) + 1]))
    ours = torch.Generator().manual_seed(1)

    def noise(index: int) -> Any:
        return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=ours)

    found = [one.x for one in trajectory(denoiser, solver, start, times, noise=noise)]
    if settings.get("variance_type") == "fixed_large":  # it adds noise to the last mean unless every entry is visited
        found, expected = found[:-1], expected[:-1]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-5, atol=1e-5)

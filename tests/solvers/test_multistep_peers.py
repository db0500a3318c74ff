"""Multistep solvers step by step beside diffusers' and k-diffusion's; runs where those are installed.

Where they differ, the difference is a formula, tested here, and `test_multistep` says by measured orders who is right:

- the first steps: ours are corrected by the answers at their ends from three terms on (correct="never" leaves that out);
- the end at sigma = 0: ours is one denoise, PNDM and LMS elsewhere go on with their polynomial;
- the third order of DPM-Solver++: half of the right weight for the second difference, in both libraries.

diffusers rounds its noise levels to float32; here it is given them in float64, which leaves the formulas.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from langevin.diffusion import Denoiser, Gaussian, GaussianDiffusion, Schedule
from langevin.diffusion.schedules import VE, Tabulated, VPLinear
from langevin.exact import oracles
from langevin.solvers import Solver, trajectory
from langevin.solvers.adams import Adams
from langevin.solvers.base import levels
from langevin.solvers.deis import DEIS
from langevin.solvers.dpm import DPM
from langevin.solvers.dpmpp import DPMpp
from langevin.solvers.grids import Karras, Trailing
from langevin.solvers.ipndm import IPNDM
from langevin.solvers.lms import LMS
from langevin.solvers.multistep import Past
from langevin.solvers.pndm import PNDM
from langevin.solvers.sa_solver import SASolver
from langevin.solvers.unipc import UniPC

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.parametrize("num_steps", [10, 20, 50])]

F64 = torch.float64
BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "timestep_spacing": "trailing",
}
TO_ZERO = {"final_sigmas_type": "zero", "lower_order_final": False}
TO_FIRST = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
"""Ends at the first entry of the table, where every step is finite."""
TABLE = Tabulated.linear()


def eps_hat(x: Tensor, i: Tensor) -> Tensor:
    """A toy network in the index of the table."""
    return torch.tanh(1.3 * x + 0.2 * x.flip(1)) * (0.6 + 0.4 * torch.cos(i / 300)) + 0.1


class Toy(Denoiser):
    def __init__(self, schedule: Schedule = TABLE) -> None:
        super().__init__()
        self.process = GaussianDiffusion(schedule)

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Gaussian:
        alpha, sigma = self.process.coefficients(t, x_t)
        return Gaussian((x_t - sigma * eps_hat(x_t, 1000 * t - 1)) / alpha)


def start() -> Tensor:
    return torch.randn(3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))


def draws(num: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 4, dtype=F64, generator=generator) for _ in range(num)]


def ours(solver: Solver[Any], times: Tensor, denoiser: Denoiser | None = None, x: Tensor | None = None) -> Tensor:
    noises = draws(len(times))
    steps = trajectory(
        denoiser or Toy(), solver, start() if x is None else x, times, noise=lambda i: lambda like: noises[i - 1]
    )
    return torch.stack([step.x for step in steps])


def grid(num_steps: int, settings: dict[str, Any]) -> Tensor:
    times = Trailing()(TABLE, num_steps)
    if settings.get("final_sigmas_type") == "sigma_min":
        times[-1] = 1 / 1000
    return times


MULTISTEP, UNIPC, SA = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"
DIFFUSERS: dict[str, tuple[Solver[Any], str, dict[str, Any]]] = {
    "2M": (DPMpp(), MULTISTEP, {"solver_order": 2, **TO_ZERO}),
    "2M heun": (Adams(2, "x0"), MULTISTEP, {"solver_order": 2, "solver_type": "heun", **TO_ZERO}),
    "2M SDE": (DPMpp(eta=1.0), MULTISTEP, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, **TO_ZERO}),
    "DPM 2": (DPM(), MULTISTEP, {"algorithm_type": "dpmsolver", "solver_order": 2, **TO_FIRST}),
    "DPM 2 heun": (
        Adams(2, "eps"),
        MULTISTEP,
        {"algorithm_type": "dpmsolver", "solver_order": 2, "solver_type": "heun", **TO_FIRST},
    ),
    **{
        f"UniPC-{p} {kind} {predict}": (
            UniPC(p, kind, predict),
            UNIPC,
            {"solver_order": p, "solver_type": kind, "predict_x0": predict == "x0", **TO_FIRST},
        )
        for p in (1, 2, 3, 4)
        for kind in ("bh1", "bh2")
        for predict in ("x0", "eps")
    },
    **{
        f"SA {s} {hat}": (
            SASolver(s, hat, pair="bh1"),
            SA,
            {"predictor_order": s, "corrector_order": hat, "lower_order_final": False},
        )
        for s, hat in ((1, 1), (2, 2), (3, 3), (2, 3), (3, 4))
    },
    **{
        f"DEIS-{k}": (
            DEIS(k, correct="never"),
            "DEISMultistepScheduler",
            {"solver_order": k, "lower_order_final": False},
        )
        for k in (1, 2, 3)
    },
}


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers(name: str, num_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers")
    solver, scheduler, settings = DIFFUSERS[name]
    given = dict(settings)
    if scheduler == SA:
        given["tau_func"] = lambda i: 1.0
        noises = iter(draws(num_steps + 1))
        module = "diffusers.schedulers.scheduling_sasolver.randn_tensor"
        monkeypatch.setattr(module, lambda *args, **kwargs: next(noises))
    times = grid(num_steps, settings if "final_sigmas_type" in settings else TO_FIRST)  # the others have no choice
    expected = diffusers_steps(getattr(diffusers, scheduler)(**BETAS, **given), times, draws_noise="SDE" in name)
    torch.testing.assert_close(ours(solver, times), expected, rtol=1e-5, atol=1e-5)


def ratios(times: Tensor) -> Tensor:
    return torch.exp(-0.5 * TABLE.log_snr(times))


def diffusers_steps(scheduler: Any, times: Tensor, *, draws_noise: bool = False) -> Tensor:
    scheduler.set_timesteps(len(times) - 1)
    if hasattr(scheduler, "sigmas"):
        torch.testing.assert_close(scheduler.sigmas.double(), ratios(times), rtol=1e-3, atol=0)
        scheduler.sigmas = ratios(times)
    noises, x, steps = draws(len(times)), start(), []
    for k, i in enumerate(scheduler.timesteps):
        step = {"variance_noise": noises[k]} if draws_noise else {}
        x = scheduler.step(eps_hat(x, i.double()), i, x, **step).prev_sample.double()
        steps.append(x)
    return torch.stack(steps)


def test_unipc_bh1_ends_at_zero_here(num_steps: int) -> None:
    """The default end of diffusers is sigma = 0, where its B(h) = h is infinite."""
    diffusers = pytest.importorskip("diffusers")
    times = Trailing()(TABLE, num_steps)
    settings = {"solver_order": 2, "solver_type": "bh1", "final_sigmas_type": "zero"}
    theirs = diffusers_steps(diffusers.UniPCMultistepScheduler(**BETAS, **settings), times)
    found = ours(UniPC(2, "bh1"), times)
    torch.testing.assert_close(found[:-1], theirs[:-1], rtol=1e-5, atol=1e-5)
    assert theirs[-1].isnan().all() and found[-1].isfinite().all()


def test_sa_solver_in_an_interval(num_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers draws noise between entries 200 and 800 of the table."""
    diffusers = pytest.importorskip("diffusers")
    noises = iter(draws(num_steps + 1))
    module = "diffusers.schedulers.scheduling_sasolver.randn_tensor"
    monkeypatch.setattr(module, lambda *args, **kwargs: next(noises))
    times = grid(num_steps, TO_FIRST)
    scheduler = diffusers.SASolverScheduler(**BETAS, lower_order_final=False)
    low, high = ratios(torch.tensor([200.9 / 1000, 801.1 / 1000], dtype=F64)).tolist()
    found = ours(SASolver(2, 2, pair="bh1", noisy=(low, high)), times)
    torch.testing.assert_close(found, diffusers_steps(scheduler, times), rtol=1e-5, atol=1e-5)


def test_pndm(num_steps: int) -> None:
    """Theirs takes the last step, to sigma = 0, with the mean of four answers; ours denoises."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=True)
    scheduler.alphas_cumprod = TABLE.alpha(torch.arange(1, 1001, dtype=F64) / 1000).square()
    times = Trailing()(TABLE, num_steps)
    theirs = diffusers_steps(scheduler, times)[1:]  # the first step is taken twice
    found = ours(PNDM(), times)
    torch.testing.assert_close(found[:-1], theirs[:-1], rtol=1e-5, atol=1e-5)
    i = 1000 * times - 1
    eps = [eps_hat(x, i[k]) for k, x in ((-2, found[-2]), (-3, found[-3]), (-4, found[-4]), (-5, found[-5]))]
    extra = (55 * eps[0] - 59 * eps[1] + 37 * eps[2] - 9 * eps[3]) / 24 - eps[0]
    torch.testing.assert_close(found[-1] - theirs[-1], ratios(times)[-2] * extra, rtol=1e-5, atol=1e-5)


def test_ipndm(num_steps: int) -> None:
    """On noise levels of our own: theirs start at alpha = 0, where it divides by 1e-8."""
    diffusers = pytest.importorskip("diffusers")
    schedule = VPLinear()
    times = oracles.log_uniform(schedule, num_steps)
    scheduler = diffusers.IPNDMScheduler(trained_betas=schedule.sigma(times).tolist())
    scheduler.set_timesteps(num_steps)
    scheduler.betas, scheduler.alphas = schedule.sigma(times), schedule.alpha(times)
    x, expected, denoiser = start(), [], oracles.oracle_a(schedule)
    x = x[:, :1]
    first = x
    for k, i in enumerate(scheduler.timesteps):
        alpha, sigma = schedule.alpha(times[k]), schedule.sigma(times[k])
        x0 = denoiser(x, times[k]).mean
        v = alpha * (x - alpha * x0) / sigma - sigma * x0
        x = scheduler.step(v, i, x).prev_sample
        expected.append(x)
    torch.testing.assert_close(ours(IPNDM(), times, denoiser, first), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_the_third_order_elsewhere(num_steps: int) -> None:
    """From the same state, theirs - ours = alpha_s phi_3 D2: they give the second difference half its weight."""
    diffusers = pytest.importorskip("diffusers")
    times = grid(num_steps, TO_FIRST)
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS, solver_order=3, **TO_FIRST)
    theirs = diffusers_steps(scheduler, times)
    at, x = levels(TABLE, times), [start(), *theirs]
    past: list[Past] = []
    for k in range(num_steps):
        x0_hat = Toy()(x[k], times[k]).mean
        found, state = DPMpp(3).step(Toy(), x[k], at[k], at[k + 1], tuple(past[:3]), cond=None, noise=torch.zeros_like)
        torch.testing.assert_close(state[0].value, x0_hat)
        past = [state[0], *past]
        if k < 3:  # ours is corrected there
            continue
        h = at[k + 1].lam - at[k].lam
        (_, _, m0), (lam1, _, m1), (lam2, _, m2) = past[:3]
        r0, r1 = (at[k].lam - lam1) / h, (lam1 - lam2) / h
        D2 = ((m0 - m1) / r0 - (m1 - m2) / r1) / (r0 + r1)
        phi_3 = (math.expm1(-h) + h) / h**2 - 0.5
        torch.testing.assert_close(found - x[k + 1], -at[k + 1].alpha * phi_3 * D2, rtol=1e-4, atol=3e-5)


K_DIFFUSION: dict[str, tuple[Solver[Any], str, dict[str, Any]]] = {
    "lms 2": (LMS(2, "never"), "sample_lms", {"order": 2}),
    "lms 4": (LMS(4, "never"), "sample_lms", {}),
    "2M": (DPMpp(), "sample_dpmpp_2m", {}),
    "2M SDE": (DPMpp(eta=1.0), "sample_dpmpp_2m_sde", {}),
    "2M SDE eta .4": (DPMpp(eta=0.4), "sample_dpmpp_2m_sde", {"eta": 0.4}),
}


@pytest.mark.parametrize("name", K_DIFFUSION)
def test_k_diffusion(name: str, num_steps: int) -> None:
    """All steps but LMS's last, which ends at sigma = 0 with its polynomial."""
    sampling = pytest.importorskip("k_diffusion.sampling")
    solver, function, settings = K_DIFFUSION[name]
    times, denoiser, x = Karras()(VE(), num_steps), oracles.oracle_a(VE()), 80 * start()[:, :1]
    sigmas, noises = VE().sigma(times), draws(num_steps + 1)
    if "SDE" in name:
        index = {round(sigma, 9): k for k, sigma in enumerate(sigmas.tolist())}
        settings = {**settings, "noise_sampler": lambda a, b: noises[index[round(a.item(), 9)]][:, :1]}
    seen: list[Tensor] = []
    end = getattr(sampling, function)(
        lambda x, sigma: denoiser(x, VE().inverse(-2 * sigma[0].log())).mean,
        x,
        sigmas,
        disable=True,
        callback=lambda step: seen.append(step["x"]),
        **settings,
    )
    steps = trajectory(denoiser, solver, x, times, noise=lambda i: lambda like: noises[i - 1][:, :1])
    found, expected = torch.stack([step.x for step in steps]), torch.stack([*seen[1:], end])
    if "lms" in name:
        found, expected = found[:-1], expected[:-1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


AZULA: dict[str, Solver[Any]] = {
    "zABSampler": Adams(3, "eps", "mu", "never"),
    "vABSampler": Adams(3, "flow", "mu", "never"),
    "zEABSampler": Adams(3, "eps", "lam", "never"),
    "xEABSampler": Adams(3, "x0", "lam", "never"),
}


@pytest.mark.parametrize("name", AZULA)
def test_azula(name: str, num_steps: int) -> None:
    sampler = getattr(pytest.importorskip("azula.sample"), name)
    schedule = VPLinear()
    denoiser, x = oracles.oracle_a(schedule), start()[:, :1]

    class Theirs:
        """Their denoiser: a schedule of (alpha, sigma), and an answer with a mean."""

        def __call__(self, x: Tensor, t: Tensor) -> Gaussian:
            return denoiser(x, t)

        def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return schedule.alpha(t), schedule.sigma(t)

    theirs = sampler(Theirs(), order=3, start=0.9, stop=0.1, steps=num_steps, dtype=F64, silent=True)
    times = theirs.timesteps.double()
    torch.testing.assert_close(ours(AZULA[name], times, denoiser, x)[-1], theirs(x), rtol=1e-5, atol=1e-5)

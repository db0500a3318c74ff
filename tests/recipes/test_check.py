"""The table is green, and turns red for a solver that is wrong by little."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from langevin.exact import identities
from langevin.recipes.check import Check, run_checks, table
from langevin.recipes.solver_oracles import registered
from langevin.solvers import base
from langevin.solvers.base import Nothing, Solver, toward
from langevin.solvers.ddim import DDIM


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return run_checks()


def wrong(checks: list[Check]) -> set[str]:
    return {c.name for c in checks if not c.ok}


def test_all_is_right(checks: list[Check]) -> None:
    assert not wrong(checks), table(checks)
    assert f"all {len(checks)} figures are right" in table(checks)
    assert sum(c.seconds for c in checks) < 60


def test_every_registered_solver_is_measured(checks: list[Check]) -> None:
    for name, solver in registered().items():
        assert sum(c.name.startswith(f"{name}: ") for c in checks) >= 2 + solver.of_ratio


def test_the_machine_is_left_as_it_was() -> None:
    torch.set_num_threads(2)
    run_checks(solvers={})
    assert torch.get_num_threads() == 2


@dataclass(frozen=True)
class Off(Solver[Nothing]):
    """DDIM that ends each step at a noise level 2 % too high."""

    by: float = 1.02

    def init(self, x_t: torch.Tensor) -> Nothing:
        return Nothing()

    def step(self, denoiser: Any, x_t: Any, at: Any, to: Any, state: Nothing, *, cond: Any, noise: Any) -> Any:
        to = to._replace(sigma=self.by * to.sigma)
        return toward(x_t, denoiser(x_t, at.t, cond).mean, at, to), state


def test_a_solver_two_percent_off_turns_it_red() -> None:
    found = run_checks(solvers={"ddim": DDIM(), "off": Off(), "as it should be": Off(1.0)})
    assert wrong(found) == {"off: order"}
    assert "WRONG  off: order" in table(found)
    assert f"1 of {len(found)} figures are wrong" in table(found)
    assert wrong(run_checks(solvers={"ddim": Off()})) == {"ddim: order", "ddim: error in 32 steps"}


def test_a_solver_that_depends_on_the_schedule_turns_it_red() -> None:
    class InTime(Off):
        """Euler in t on x itself: right on the rectified flow alone."""

        def step(self, denoiser: Any, x_t: Any, at: Any, to: Any, state: Nothing, *, cond: Any, noise: Any) -> Any:
            schedule, h, t, s = denoiser.process.schedule, 1e-6, at.t, to.t
            x0, alpha, sigma = denoiser(x_t, t, cond).mean, schedule.alpha(t), schedule.sigma(t)
            eps = (x_t - alpha * x0) / sigma
            velocity = [(f(t) - f(t - h)) / h for f in (schedule.alpha, schedule.sigma)]
            return x_t + (s - t) * (velocity[0] * x0 + velocity[1] * eps), state

    assert "in time: VE, VP and flow end alike" in wrong(run_checks(solvers={"in time": InTime()}))


def test_a_step_that_is_wrong_inside_turns_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared step itself, off by 2 % in sigma_s, as the solvers import it."""
    import langevin.solvers.ddim
    import langevin.solvers.exponential
    import langevin.solvers.heun

    def off(x_t: Any, x0_hat: Any, at: Any, to: Any) -> Any:
        return base.toward(x_t, x0_hat, at, to._replace(sigma=1.02 * to.sigma))

    for module in (langevin.solvers.ddim, langevin.solvers.exponential, langevin.solvers.heun):
        monkeypatch.setattr(module, "toward", off)
    found = wrong(run_checks())
    assert {"ddim: order", "ddim: error in 32 steps", "dpmpp_2s: order", "dpmpp_3s: order", "heun: order"} <= found
    assert {"ddim(eta=1.0): order of the variance, Gaussian data", "ddim(eta=1.0): variance in 64 steps"} <= found
    assert not {name for name in found if name.startswith("ancestral")}  # it does not use that step


def test_a_solver_that_breaks_is_a_red_line_not_a_crash() -> None:
    class Breaks(Off):
        def step(self, *args: Any, **more: Any) -> Any:
            raise RuntimeError("out of ideas")

    class Explodes(Off):
        def step(self, denoiser: Any, x_t: Any, *args: Any, **more: Any) -> Any:
            return x_t * float("nan"), Nothing()

    found = run_checks(solvers={"breaks": Breaks(), "explodes": Explodes()})
    assert {"breaks", "explodes: order", "explodes: t = 1 to 0 on every schedule"} <= wrong(found)
    assert "RuntimeError: out of ideas" in table(found)


def test_wrong_mathematics_turns_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    from langevin.diffusion.schedules import Cosine

    sigma = Cosine.sigma
    monkeypatch.setattr(Cosine, "sigma", lambda self, t: 1.001 * sigma(self, t))
    found = wrong(run_checks(solvers={}))
    assert "every schedule: inverse(log_snr(t)) = t" in found
    assert "the chain of steps is the closed form" not in found  # which holds for any alpha and sigma
    monkeypatch.undo()
    monkeypatch.setitem(identities.LOSSES, next(iter(identities.LOSSES)), list(identities.LOSSES.values())[1])
    assert "each named loss is a weight on the error of x0" in wrong(run_checks(solvers={}))


def test_a_wrong_average_turns_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    from langevin.training import ema

    monkeypatch.setattr(ema, "beta", lambda step, sigma_rel: (1 - 1 / step) ** ema.gamma_of(sigma_rel))
    assert "average of width 0.08 from 16 snapshots of others" in wrong(run_checks(solvers={}))


def test_wrong_token_mathematics_turns_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    from langevin.diffusion.process import MaskedDiffusion, UniformDiffusion

    for kind, name in ((MaskedDiffusion, "masked"), (UniformDiffusion, "uniform")):
        rate = kind.nll_rate
        monkeypatch.setattr(kind, "nll_rate", lambda self, *args, rate=rate: 1.001 * rate(self, *args))
        found = wrong(run_checks(solvers={}))
        assert found == {f"{name} tokens, {s}: evidence bound = log p of every x" for s in ("linear", "cosine")}
        monkeypatch.undo()

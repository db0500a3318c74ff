"""Adams-Bashforth in the angle: against quadrature, exact solutions of its own, and errors of others on exact mixtures."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from langevin import rng
from langevin.diffusion import GaussianDiffusion
from langevin.diffusion.schedules import VE, Flow, Tabulated
from langevin.exact import GaussianDenoiser, MixtureDenoiser, oracles
from langevin.recipes import solver_oracles as measure
from langevin.solvers import trajectory
from langevin.solvers.angle import Angle, _integrals, _weights
from langevin.solvers.default import default
from langevin.solvers.dpmpp import DPMpp
from langevin.solvers.grids import Karras, LogSNR, Scales, Uniform

F64 = torch.float64


def test_weights_are_the_integrals() -> None:
    """Against adaptive quadrature in theta of NumPy's polynomials in psi, from alpha = 0 downwards too."""
    solver = Angle(4, 0.2, 10.0)

    def psi(theta: float) -> float:
        return math.log((math.sin(theta) + 0.2 * math.cos(theta)) / (math.cos(theta) + math.sin(theta) / 10))

    for thetas in ([math.pi / 2, 1.2], [0.9, 1.1, 1.4, 0.4], [0.05, 0.11, 0.3, 0.6, 0.01]):
        *known, end = thetas
        nodes = tuple(psi(t) for t in known)
        found = _integrals(solver, nodes, nodes[0], psi(end))
        for j in range(len(known)):
            basis = np.polynomial.polynomial.polyfit(nodes, np.eye(len(known))[j], len(known) - 1)
            expected, _ = quad(
                lambda t, c=basis: np.polynomial.polynomial.polyval(psi(t), c), known[0], end, epsabs=1e-13
            )
            assert found[j] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_order(order: int) -> None:
    assert abs(measure.order(Angle(order=order)) - order) < 0.16


def test_without_its_start_the_fourth_order_would_be_of_second() -> None:
    """The correction of the first steps is what keeps their error from staying."""
    nodes = (-0.3, 0.1)
    plain = _integrals(Angle(), nodes, nodes[0], -0.6)
    assert max(abs(a - b) for a, b in zip(_weights(Angle(), nodes, -0.6), plain, strict=True)) > 1e-3
    assert _weights(Angle(order=2), nodes, -0.6) == plain


@pytest.mark.parametrize("schedule", [VE(), Flow()])
def test_gaussian_data_of_unit_variance_stand_still(schedule) -> None:
    """Their flow is exact at any number of steps, until the last: x = sqrt(alpha^2 + sigma^2) x_1 / sigma_1."""
    denoiser = GaussianDenoiser(GaussianDiffusion(schedule), torch.zeros(3, dtype=F64), torch.ones((), dtype=F64))
    x = torch.tensor([[0.3, -1.2, 2.0]], dtype=F64)
    start = x * torch.hypot(schedule.alpha(torch.ones((), dtype=F64)), schedule.sigma(torch.ones((), dtype=F64)))
    *inner, end = trajectory(denoiser, Angle(), start, Scales()(schedule, 6))
    for step in inner:
        t = torch.tensor(step.t, dtype=F64)
        torch.testing.assert_close(
            step.x, x * torch.hypot(schedule.alpha(t), schedule.sigma(t)), rtol=1e-12, atol=1e-12
        )
    torch.testing.assert_close(end.x, x, rtol=2e-3, atol=0)  # the last step is of fourth order in its sigma


def test_the_last_step_is_exact_where_x0_is_a_square_of_the_ratio() -> None:
    class Parabola(oracles.MixtureDenoiser):
        """x0_hat = 1 + 3 r^2, whatever x."""

        def forward(self, x_t, t, cond=None):
            r = self.process.schedule.sigma(t) / self.process.schedule.alpha(t)
            return type(super().forward(x_t, t))(torch.ones_like(x_t) + 3 * r**2)

    denoiser = Parabola(GaussianDiffusion(Flow()), *(torch.tensor(a) for a in ([1.0], [[0.0]], [1.0])))
    *_, step = trajectory(denoiser, Angle(), torch.randn(4, 1, dtype=F64), Uniform()(Flow(), 5))
    torch.testing.assert_close(step.x, torch.ones(4, 1, dtype=F64), rtol=1e-12, atol=1e-12)


def mixture(seed: int) -> MixtureDenoiser:
    """Ten components in 2, 4, 8 or 16 dimensions, under DDPM's schedule."""
    draw = torch.Generator().manual_seed(seed)
    size = 2 ** (1 + seed % 4)
    means = 0.7 * torch.randn(10, size, dtype=F64, generator=draw)
    stds = 0.1 + 0.3 * torch.rand(10, dtype=F64, generator=draw)
    return MixtureDenoiser(GaussianDiffusion(Tabulated.linear()), torch.ones(10, dtype=F64), means, stds)


def end_errors(denoiser: MixtureDenoiser, num: int) -> dict[str, float]:
    """Mean distance from a fine solution after `num` evaluations."""
    schedule = denoiser.process.schedule
    x = denoiser.process.prior((256, *denoiser.means.shape[1:]), rng.keyed(range(256))(0), dtype=F64)
    *_, fine = trajectory(denoiser, DPMpp(), x, LogSNR(1e-4, 1e9)(schedule, 1500))
    solver, grid = default(num)
    cases = {
        "default": (solver, grid),
        "karras": (DPMpp(), Karras()),
        "karras from .02": (DPMpp(), Karras(5.0, 0.02)),
        "log": (DPMpp(), LogSNR(0.01, 1e9)),
    }
    found = {}
    for name, (solver, grid) in cases.items():
        *_, step = trajectory(denoiser, solver, x, grid(schedule, num))
        found[name] = (step.x - fine.x).flatten(1).norm(dim=1).mean().item()
    return found


@pytest.mark.parametrize("num", [5, 10, 20])
def test_the_default_beats_second_order_solvers_on_their_grids(num: int) -> None:
    for seed in range(4):
        found = end_errors(mixture(seed), num)
        own = found.pop("default")
        assert own < 0.85 * min(found.values()), (seed, own, found)


@pytest.mark.parametrize("settings", [{"order": 0}, {"order": 9}, {"low": 0.0}, {"low": 3.0, "high": 2.0}])
def test_impossible_settings_are_refused(settings) -> None:
    with pytest.raises(ValueError, match="must"):
        Angle(**settings)

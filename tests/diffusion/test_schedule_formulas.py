"""Each schedule against its paper's formula, written again in NumPy."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from langevin.diffusion import schedules as S

T = np.linspace(0.003, 0.997, 57)


def found(schedule: S.Schedule) -> tuple[np.ndarray, np.ndarray]:
    t = torch.from_numpy(T)
    return schedule.alpha(t).numpy(), schedule.sigma(t).numpy()


@pytest.mark.parametrize(
    ("schedule", "beta"),
    [
        (S.VPLinear(), lambda t: 0.1 + 19.9 * t),
        (S.ScaledLinear(), lambda t: (math.sqrt(0.85) + t * (math.sqrt(12) - math.sqrt(0.85))) ** 2),
        (S.VPLinear(2.0, 2.0), lambda t: 2.0),
        (S.ScaledLinear(2.0, 2.0), lambda t: 2.0),
    ],
)
def test_variance_preserving_is_the_integral_of_beta(schedule: S.Schedule, beta) -> None:
    alpha, sigma = found(schedule)
    integral = np.array([quad(beta, 0, t)[0] for t in T])
    np.testing.assert_allclose(alpha, np.exp(-integral / 2), rtol=1e-12)
    np.testing.assert_allclose(sigma, np.sqrt(-np.expm1(-integral)), rtol=1e-12)
    t = torch.from_numpy(T)
    torch.testing.assert_close(schedule.inverse(schedule.log_snr(t)), t, rtol=1e-12, atol=0)


def test_sub_vp() -> None:  # Song et al. 2021, eq. 29
    alpha, sigma = found(S.SubVP())
    integral = 0.1 * T + 0.5 * T**2 * 19.9
    np.testing.assert_allclose(alpha, np.exp(-integral / 2), rtol=1e-12)
    np.testing.assert_allclose(sigma, 1 - np.exp(-integral), rtol=1e-12)


def test_ve() -> None:  # Song et al. 2021, eq. 30, less what is there at t = 0
    alpha, sigma = found(S.VE(0.01, 50.0))
    geometric = 0.01 * (50 / 0.01) ** T
    np.testing.assert_allclose(sigma, np.sqrt(geometric**2 - 0.01**2) * 50 / np.sqrt(50**2 - 0.01**2), rtol=1e-12)
    assert (alpha == 1).all()
    np.testing.assert_allclose(sigma[T > 0.5], geometric[T > 0.5], rtol=1e-3)


def test_cosine() -> None:  # Nichol & Dhariwal 2021, eq. 17
    alpha, sigma = found(S.Cosine())
    f = np.cos((T + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(alpha**2, f, rtol=1e-10)
    np.testing.assert_allclose(sigma**2, 1 - f, rtol=1e-10)


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_sigmoid(tau: float) -> None:  # Jabri et al. 2022, algorithm 1
    alpha, sigma = found(S.Sigmoid(tau=tau))

    def logistic(x):
        return 1 / (1 + np.exp(-x))

    start, end = logistic(-3 / tau), logistic(3 / tau)
    f = (end - logistic((T * 6 - 3) / tau)) / (end - start)
    np.testing.assert_allclose(alpha**2, f, rtol=1e-9)
    np.testing.assert_allclose(sigma**2, 1 - f, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("table", "betas"),
    [
        (S.Tabulated.linear(), np.linspace(1e-4, 0.02, 1000)),
        (S.Tabulated.scaled_linear(), np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
        (
            S.Tabulated.from_schedule(S.Cosine(), 1000),  # Improved DDPM's betas_for_alpha_bar
            np.array(
                [
                    min(1 - math.cos((i + 1 + 8) / 1008 * math.pi / 2) ** 2
                        / math.cos((i + 8) / 1008 * math.pi / 2) ** 2, 0.999)
                    for i in range(1000)
                ]
            ),
        ),
        (S.Tabulated((0.3,)), np.array([0.3])),
    ],
    ids=["ddpm", "stable diffusion", "cosine", "one entry"],
)  # fmt: skip
def test_table_of_betas_is_the_cumulative_product(table: S.Tabulated, betas: np.ndarray) -> None:
    keep = np.cumprod(1 - betas)
    t = (torch.arange(table.T, dtype=torch.float64) + 1) / table.T
    np.testing.assert_allclose(table.alpha(t).numpy() ** 2, keep, rtol=1e-9)
    np.testing.assert_allclose(table.sigma(t).numpy() ** 2, 1 - keep, rtol=1e-9)


def test_between_nodes_the_logarithm_is_linear() -> None:
    table = S.Tabulated((0.1, 0.2, 0.3))
    ratio = np.sqrt(1 / np.cumprod([0.9, 0.8, 0.7]) - 1)
    t = torch.tensor([0.25 / 3, 1.5 / 3, 2.75 / 3, 3.5 / 3], dtype=torch.float64)
    expected = [
        0.25 * ratio[0],
        ratio[0] ** 0.5 * ratio[1] ** 0.5,
        ratio[1] ** 0.25 * ratio[2] ** 0.75,
        ratio[2] ** 1.5 / ratio[1] ** 0.5,
    ]
    np.testing.assert_allclose((table.sigma(t) / table.alpha(t)).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(table.inverse(table.log_snr(t)).numpy(), t.numpy(), rtol=1e-12)


def test_the_table_tends_to_the_continuous_schedule() -> None:
    for table, schedule in ((S.Tabulated.linear(4000, 2.5e-5, 0.005), S.VPLinear()),):
        t = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
        assert (table.log_snr(t) - schedule.log_snr(t)).abs().max() < 0.03


@pytest.mark.parametrize("betas", [(), (0.0, 0.1), (0.1, 1.0, 0.1), (0.1, 1.2), (-0.1,), (1.0,)])
def test_betas_that_cannot_be(betas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="betas"):
        S.Tabulated(betas)


def test_zero_terminal_table_is_algorithm_1() -> None:  # Lin et al. 2024
    table = S.Tabulated.scaled_linear()
    root = np.sqrt(np.cumprod(1 - np.array(table.betas)))
    first, last = root[0], root[-1]
    root = (root - last) * first / (first - last)
    fixed = S.zero_terminal(table)
    t = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    np.testing.assert_allclose(fixed.alpha(t).numpy()[:-1], root[:-1], rtol=1e-10)
    assert fixed.alpha(t)[-1] == 0 and fixed.sigma(t)[-1] == 1
    middle = torch.tensor([0.9995], dtype=torch.float64)  # alpha / sigma goes linearly to 0 in the last interval
    at, before = (torch.exp(0.5 * fixed.log_snr(x)) for x in (middle, t[-2:-1]))
    torch.testing.assert_close(at, before / 2, rtol=1e-9, atol=0)


def test_zero_terminal_of_a_continuous_schedule() -> None:
    base = S.VPLinear(0.1, 5.0)
    alpha, sigma = found(S.zero_terminal(base))
    last = math.exp(-0.25 * 4.9 - 0.05)
    expected = (np.exp(-0.25 * 4.9 * T**2 - 0.05 * T) - last) / (1 - last)
    np.testing.assert_allclose(alpha, expected, rtol=1e-10)
    np.testing.assert_allclose(sigma, np.sqrt(1 - expected**2), rtol=1e-9)
    for wrong in (S.Flow(), S.VE(), S.SubVP()):
        with pytest.raises(ValueError, match="variance-preserving"):
            S.zero_terminal(wrong)


def test_shift() -> None:
    t = torch.from_numpy(T)
    flow = S.Shifted(S.Flow(), 3.0)  # Esser et al. 2024, eq. 23
    np.testing.assert_allclose(flow.sigma(t).numpy(), 3 * T / (1 + 2 * T), rtol=1e-12)
    for base in (S.Cosine(), S.VPLinear(), S.Tabulated.linear(), S.VE()):  # Hoogeboom et al. 2023, eq. 4
        moved = S.Shifted(base, 256 / 64).log_snr(t)
        torch.testing.assert_close(moved, base.log_snr(t) + 2 * math.log(64 / 256), rtol=1e-9, atol=1e-9)


def test_published_tables() -> None:
    from langevin.recipes.check import _measured, _tables

    checks = list(_measured("tables", "", _tables))
    assert len(checks) == 12 and all(c.ok for c in checks), [c for c in checks if not c.ok]

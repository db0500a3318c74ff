"""What every parametrization keeps, on every schedule."""

import pytest
import torch

from langevin.diffusion import NetworkDenoiser, Schedule
from langevin.diffusion.parametrization import Karras, LearnedVariance, Parametrization, V
from langevin.diffusion.schedules import VE, VPLinear
from langevin.exact import identities
from langevin.exact.oracles import log_uniform, oracle_a, schedules, starts
from langevin.recipes.solver_oracles import last
from langevin.registry import names
from langevin.solvers.heun import Heun

every_schedule = pytest.mark.parametrize("schedule", schedules().values(), ids=schedules())
every_one = pytest.mark.parametrize("parametrization", identities.MEANINGS, ids=lambda p: type(p).__name__)


def test_every_parametrization_has_its_meaning_written_down() -> None:
    known = {type(p) for p in identities.MEANINGS} | {LearnedVariance}
    assert known == set(names("langevin.diffusion.parametrization", Parametrization).values())


@every_schedule
@every_one
def test_round_trip(parametrization: Parametrization, schedule: Schedule) -> None:
    assert identities.round_trip(parametrization, schedule) < 1e-12


@every_schedule
@pytest.mark.parametrize("parametrization", identities.LOSSES, ids=lambda p: type(p).__name__)
def test_named_loss_is_a_weight_on_x0(parametrization: Parametrization, schedule: Schedule) -> None:
    half = torch.tensor(0.5, dtype=torch.float64)
    if isinstance(parametrization, V) and abs(schedule.alpha(half) ** 2 + schedule.sigma(half) ** 2 - 1) > 1e-9:
        assert identities.named_loss(parametrization, schedule) > 0.01  # snr + 1 holds for these alone
    else:
        assert identities.named_loss(parametrization, schedule) < 1e-12


@pytest.mark.parametrize("ratio", [0.01, 0.5, 10.0])
@pytest.mark.parametrize("schedule", [VE(), VPLinear()])
def test_karras_has_unit_variances(schedule: Schedule, ratio: float) -> None:
    for sigma_data in (0.5, 2.0):
        loss, variance = identities.karras_variances(schedule, ratio, sigma_data)
        assert abs(loss - 1) < 1e-12 and abs(variance - 1) < 1e-12


@every_schedule
def test_karras_input_has_unit_variance_by_sampling(schedule: Schedule) -> None:
    rng = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 40000, 1, dtype=torch.float64, generator=rng) * torch.tensor([0.5, 1.0])[:, None, None]
    for t in log_uniform(schedule, 2, 10.0, 0.1):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x, c_noise = Karras(0.5).inputs(alpha * x0 + sigma * eps, alpha, sigma)
        assert abs(x.var().item() - 1) < 4 * (2 / 40000) ** 0.5
        assert c_noise.shape == (40000,) and abs(c_noise[0] - 0.25 * torch.log(sigma / alpha)) < 1e-12


class ExactNetwork(torch.nn.Module):
    """What a perfectly trained network of this parametrization says: it has c_in x_t and c_noise alone."""

    def __init__(self, parametrization: Parametrization, schedule: Schedule) -> None:
        super().__init__()
        self.parametrization, self.schedule, self.exact = parametrization, schedule, oracle_a(schedule)

    def forward(self, x, c_noise, cond):
        t = self.schedule.inverse(-8 * c_noise)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        x_t = x / self.parametrization.coefficients(alpha, sigma).c_in[:, None]
        return self.parametrization.target(self.exact(x_t, t).mean, x_t, alpha, sigma)


@every_schedule
@every_one
def test_what_a_network_predicts_does_not_change_the_samples(
    parametrization: Parametrization, schedule: Schedule
) -> None:
    exact = oracle_a(schedule)
    network = NetworkDenoiser(ExactNetwork(parametrization, schedule), exact.process, parametrization)
    times = log_uniform(schedule, 10, 10.0, 0.05)
    x = starts(schedule, 20)
    torch.testing.assert_close(last(network, Heun(), x, times), last(exact, Heun(), x, times), rtol=1e-9, atol=1e-9)

"""What every guidance keeps; a new file is found by itself and must be told here how one of it is made."""

import inspect
from collections.abc import Callable
from itertools import islice

import pytest
import torch
from torch import Tensor

from langevin import guidance as room
from langevin import rng
from langevin.diffusion import Denoiser, GaussianDiffusion, Schedule
from langevin.diffusion.schedules import Flow, VPLinear
from langevin.exact import GaussianDenoiser, MixtureDenoiser, oracles
from langevin.registry import names
from langevin.solvers import sample, trajectory
from langevin.solvers.ddim import DDIM
from langevin.solvers.grids import Uniform

F64 = torch.float64
SEEN = torch.tensor([True, False, False])
Y = torch.tensor([[0.4]], dtype=F64)
NUM_STEPS = 5


def data(schedule: Schedule) -> MixtureDenoiser:
    """Two classes in three dimensions."""
    means = torch.tensor([[-0.8, 0.1, 0.5], [0.7, 0.3, -0.6]], dtype=F64)
    stds = torch.tensor([[0.3, 0.2, 0.5], [0.4, 0.6, 0.2]], dtype=F64)
    weights = torch.tensor([0.4, 0.6], dtype=F64)
    return MixtureDenoiser(GaussianDiffusion(schedule), weights, means, stds)


def logits(denoiser: MixtureDenoiser) -> Callable[[Tensor, Tensor], Tensor]:
    """log p(c, x_t): the exact classifier of the mixture's components."""

    def classify(x_t: Tensor, t: Tensor) -> Tensor:
        given = [{"label": torch.full((len(x_t),), k)} for k in range(2)]
        each = torch.stack([denoiser.log_prob(x_t, t, cond) for cond in given], 1) + denoiser.log_weights
        return each.to(x_t.dtype)

    return classify


def weak(denoiser: MixtureDenoiser) -> GaussianDenoiser:
    """One Gaussian in the place of two."""
    zero = torch.zeros(3, dtype=F64)
    return GaussianDenoiser(denoiser.process, zero, torch.ones_like(zero))


def times(denoiser: Denoiser) -> Tensor:
    return Uniform()(denoiser.process.schedule, NUM_STEPS)


LABEL = {"label": torch.tensor([1])}
MAKE: dict[str, Callable[[MixtureDenoiser], Denoiser]] = {
    "apg": lambda d: room.APG(d, 3.0, parallel=0.5, norm=0.4),
    "autoguidance": lambda d: room.Autoguidance(d, weak(d), 2.0),
    "cfg": lambda d: room.ClassifierFree(d, 2.5, rescale=0.3),
    "cfgpp": lambda d: room.CFGpp(d, 0.6, times(d)),
    "classifier": lambda d: room.ClassifierGuidance(d, logits(d), 1.5),
    "compose": lambda d: room.Composed(d, [(LABEL, 0.7), ({"label": torch.tensor([0])}, -0.3)]),
    "dps": lambda d: room.DPS(d, room.Mask(SEEN), Y, times(d), step=0.2),
    "energy": lambda d: room.Energy(d, lambda x, t, cond: x.square().sum(1), 0.7),
    "inpaint": lambda d: room.Inpainting(d, Y.expand(1, 3), SEEN),
    "interval": lambda d: room.Interval(room.ClassifierFree(d, 2.0), d, 0.1, 3.0),
    "mmps": lambda d: room.MMPS(d, room.Mask(SEEN), Y, 0.1),
    "pigdm": lambda d: room.PiGDM(d, room.Mask(SEEN), Y, 0.1),
    "threshold": lambda d: room.Threshold(d, quantile=0.9, bound=0.5),
}
every = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
SCHEDULES = oracles.schedules()


def cond(num: int) -> dict[str, Tensor]:
    return {"label": torch.arange(num) % 2}


def test_every_file_is_here() -> None:
    assert set(MAKE) == set(names("langevin.guidance", Denoiser))  # type: ignore[type-abstract]
    for name in MAKE:
        module = inspect.getmodule(names("langevin.guidance", Denoiser)[name])  # type: ignore[type-abstract]
        assert module is not None and len(inspect.getsource(module).splitlines()) < 150


@every
def test_two_trajectories_do_not_meet(make) -> None:
    denoiser = make(data(Flow()))

    def steps(seed: int):
        x = rng.keyed(range(seed, seed + 4))(0)(torch.empty(4, 3, dtype=F64))
        return trajectory(denoiser, DDIM(), x, times(denoiser), cond={"label": torch.full((4,), seed % 2)})

    alone = [[step.x for step in steps(seed)] for seed in (0, 5)]
    woven = [steps(0), steps(5)]
    for i in range(NUM_STEPS):
        for k in (0, 1):
            assert torch.equal(next(woven[k]).x, alone[k][i])
    *_, last = islice(steps(0), 3)
    x = rng.keyed(range(4))(0)(torch.empty(4, 3, dtype=F64))
    resumed = trajectory(
        denoiser, DDIM(), x, times(denoiser), cond={"label": torch.zeros(4, dtype=torch.long)}, resume=last
    )
    assert [torch.equal(a.x, b) for a, b in zip(resumed, alone[0][3:], strict=True)] == [True, True]


@every
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_batch_is_its_samples(make, dtype: torch.dtype) -> None:
    denoiser = make(data(VPLinear()))

    def draw(seeds: list[int]) -> Tensor:
        labels = {"label": torch.tensor([s % 2 for s in seeds])}
        return sample(denoiser, DDIM(), (3,), times(denoiser), seeds=seeds, cond=labels, dtype=dtype)

    whole = draw(list(range(8)))
    assert whole.dtype == dtype and whole.isfinite().all()
    assert torch.equal(whole, torch.cat([draw([0, 1, 2, 3]), draw([4, 5, 6, 7])]))
    assert torch.equal(whole[[6, 1]], draw([6, 1]))


@every
def test_a_time_for_each_sample_is_as_good_as_one_for_all(make) -> None:
    denoiser, x = make(data(VPLinear())), torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    each = torch.tensor([1.0, 0.8, 0.37, 0.04, 0.001], dtype=F64)
    together = denoiser(x, each, cond(5)).mean
    for k in range(5):
        alone = denoiser(x[k : k + 1], each[k], {"label": cond(5)["label"][k : k + 1]}).mean
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-9, atol=1e-9)


@every
def test_conditions_reach_it(make) -> None:
    """All but those that hold their own conditions are told the caller's; an outer one is not lost on the way in."""
    denoiser = make(data(VPLinear()))
    x, t = torch.full((2, 3), 0.1, dtype=F64), torch.tensor(0.4, dtype=F64)
    a, b = (denoiser(x, t, {"label": torch.full((2,), k)}).mean for k in (0, 1))
    assert (a - b).abs().max() > 1e-3
    torch.testing.assert_close(denoiser(x, t, cond(2)).mean, torch.stack([a[0], b[1]]), rtol=1e-12, atol=1e-12)
    assert denoiser(x, t, None).mean.isfinite().all()


@every
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_finite_from_one_to_zero(make, schedule: Schedule) -> None:
    denoiser = make(data(schedule))
    for dtype in (torch.float32, F64):
        x = denoiser.process.prior((4, 3), rng.keyed(range(4))(0), dtype=dtype)
        for t in (0.0, 1e-6, 1e-3, 0.5, 1 - 1e-6, 1.0):
            time = torch.tensor(t, dtype=F64)
            x_t = x * (schedule.sigma(time) / schedule.sigma(torch.ones_like(time)))
            mean = denoiser(x_t, time, cond(4)).mean
            assert mean.isfinite().all() and mean.dtype == dtype and mean.shape == x.shape, t
        end = sample(denoiser, DDIM(), (3,), times(denoiser), seeds=range(4), cond=cond(4), dtype=dtype)
        assert end.isfinite().all() and end.abs().max() < 20


@every
def test_nothing_is_learned_or_kept(make) -> None:
    """A denoiser's answer is a function of its arguments, under no_grad, and leaves no graph behind."""
    denoiser = make(data(Flow()))
    x, t = torch.full((2, 3), 0.2, dtype=F64), torch.tensor(0.6, dtype=F64)
    with torch.no_grad():
        first = denoiser(x, t, cond(2)).mean
        denoiser(x + 1, t * 0.5, None)
        assert torch.equal(denoiser(x, t, cond(2)).mean, first)
    assert not first.requires_grad and not x.requires_grad

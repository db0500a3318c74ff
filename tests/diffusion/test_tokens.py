"""Token diffusion against closed forms: the sampler's exact law, the bound, the chain, the concrete score, rare tokens."""

import math
from functools import partial
from itertools import product

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from langevin import rng
from langevin.diffusion import (
    Categorical,
    CategoricalDiffusion,
    Condition,
    Denoiser,
    Gaussian,
    LogitsDenoiser,
    MaskedDiffusion,
    UniformDiffusion,
)
from langevin.diffusion.remembering import Remembering
from langevin.diffusion.schedules import Cosine, Flow, Sigmoid, VPLinear, ZeroTerminal
from langevin.diffusion.tokens import bound_loss, cross_entropy_loss, token_nll, token_rates, token_step_kl
from langevin.exact import CategoricalDenoiser
from langevin.exact import token_oracles as oracles
from langevin.registry import build, describe, names
from langevin.solvers import sample, trajectory
from langevin.solvers.ancestral import Ancestral
from langevin.solvers.dpmpp import DPMpp
from langevin.solvers.grids import Uniform

F64 = torch.float64
KINDS: tuple[type[CategoricalDiffusion], ...] = (MaskedDiffusion, UniformDiffusion)
SCHEDULES = {**oracles.SCHEDULES, "sigmoid": Sigmoid(), "terminal": ZeroTerminal(VPLinear())}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_process = pytest.mark.parametrize(
    "process",
    [kind(s, 3) for kind in KINDS for s in SCHEDULES.values()],
    ids=lambda p: f"{type(p).__name__}-{p.schedule}",
)


def tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def generated(seed: int) -> rng.Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


def at(u: Tensor) -> rng.Noise:
    """Noise whose uniform numbers are these."""
    return lambda like: torch.special.ndtri(u).expand(like.shape)


class Blurred(Denoiser):
    """Another's answer, made less certain: wrong by a known amount."""

    def __init__(self, denoiser: CategoricalDenoiser, keep: float) -> None:
        super().__init__()
        self.denoiser, self.keep, self.process = denoiser, keep, denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Categorical:
        q = self.denoiser(x_t, t, cond)
        blurred = Categorical(torch.log(self.keep * q.probs + (1 - self.keep) / q.probs.shape[-1]))
        assert isinstance(self.process, CategoricalDiffusion)
        return Categorical(blurred.logits + torch.where(q.probs > 0, 0.0, -torch.inf))


# --- the process ---


@every_process
def test_a_time_next_to_nothing_is_finite(process: CategoricalDiffusion) -> None:
    """There alpha rounds to 1: no token changes, and its rate and gradient are finite."""
    denoiser = LogitsDenoiser(Random(3), process)
    x0, t = torch.tensor([[0, 2, 1], [2, 2, 0]]), torch.full((2,), 1e-30, dtype=F64)
    denoiser.network.table.requires_grad_()
    loss = bound_loss(denoiser, x0, t, generated(0)).sum()
    (slope,) = torch.autograd.grad(loss, denoiser.network.table)
    assert loss.isfinite() and slope.isfinite().all()
    assert torch.equal(denoiser(x0, tensor(0.0)).sample(generated(1)), x0)


@every_process
def test_chain_composes_to_the_closed_form(process: CategoricalDiffusion) -> None:
    assert oracles.chain(process) < 1e-12


@every_process
def test_corrupt_draws_from_the_transition(process: CategoricalDiffusion) -> None:
    """Within 4 s.e.; what cannot be never is."""
    num, noise = 40_000, generated(0)
    for t, s in ((0.6, None), (0.8, 0.3), (1.0, 0.5), (1.0, None)):
        law = process.transition(tensor(t), None if s is None else tensor(s))
        for start in range(3 if s is None else len(process.limit)):
            x = process.corrupt(
                torch.full((num, 1), start), tensor(t), noise, s=None if s is None else tensor(s)
            ).flatten()
            share = torch.bincount(x, minlength=len(law)) / num
            error = (law[start] * (1 - law[start]) / num).sqrt()
            assert bool(((share - law[start]).abs() <= 4 * error + 1e-12).all()), (t, s, start)


@every_process
def test_keep_rate_is_alpha(process: CategoricalDiffusion) -> None:
    t = torch.linspace(0.05, 0.95, 7, dtype=F64)
    x0 = torch.zeros(7, 20_000, dtype=torch.int64)
    kept = (process.corrupt(x0, t, generated(1)) == 0).double().mean(1)
    alpha = process.schedule.alpha(t)
    expected = alpha if isinstance(process, MaskedDiffusion) else alpha + (1 - alpha) / 3
    error = (expected * (1 - expected) / x0.shape[1]).sqrt()
    assert bool(((kept - expected).abs() < 4 * error).all())


@every_kind
def test_corrupt_takes_a_time_for_each_sample(kind: type[CategoricalDiffusion]) -> None:
    process = kind(Cosine(), 5)
    x = torch.arange(24).reshape(3, 2, 4) % 5
    t, s = torch.tensor([0.2, 0.6, 1.0], dtype=F64), torch.tensor([0.1, 0.0, 0.3], dtype=F64)
    for before in (None, s):
        whole = process.corrupt(x, t, rng.keyed(range(3))(0), s=before)
        for i in range(3):
            one = process.corrupt(x[i : i + 1], t[i], rng.keyed([i])(0), s=None if before is None else before[i])
            assert torch.equal(whole[i : i + 1], one)
    assert torch.equal(process.corrupt(x, torch.zeros(3, dtype=F64), generated(0)), x)


@every_process
@pytest.mark.parametrize(("t", "s"), [(0.7, 0.3), (1.0, 0.5), (0.4, 0.0), (1.0, 0.0)])
def test_reverse_is_bayes_rule(process: CategoricalDiffusion, t: float, s: float) -> None:
    """q(x_s | x_t, x0) = q(x_t | x_s) q(x_s | x0) / q(x_t | x0), from matrices alone."""
    step, to_s, to_t = (
        process.transition(tensor(t), tensor(s)),
        process.transition(tensor(s)),
        process.transition(tensor(t)),
    )
    for x0, x_t in product(range(3), range(len(process.limit))):
        if to_t[x0, x_t] == 0:
            continue
        exact = step[:, x_t] * to_s[x0] / to_t[x0, x_t]
        q = Categorical.point(torch.tensor([[x0]]), 3)
        found = process.reverse(q, torch.tensor([[x_t]]), tensor(t), tensor(s)).probs[0, 0]
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-14)


@every_process
def test_reverse_carries_the_data_law_back(process: CategoricalDiffusion) -> None:
    for length in (1, 2):
        denoiser = CategoricalDenoiser(process, oracles.table(3, length))
        for t, s in ((0.7, 0.3), (1.0, 0.4), (0.5, 0.0), (1.0, 0.0)):
            assert oracles.reverse_marginals(denoiser, tensor(t), tensor(s)) < 1e-12


def test_unmasked_tokens_stay_and_the_mask_is_never_said() -> None:
    process = MaskedDiffusion(Cosine(), 4)
    network = Random(4)
    denoiser = LogitsDenoiser(network, process)
    x = process.prior((200, 6), rng.keyed(range(200))(0))
    assert bool((x == process.mask).all())
    for step in trajectory(denoiser, Ancestral(), x, Uniform()(process.schedule, 12), noise=rng.keyed(range(200))):
        seen = x != process.mask
        assert torch.equal(step.x[seen], x[seen])
        q = denoiser(step.x, tensor(step.t))
        assert q.probs.shape[-1] == 4
        shown = step.x != process.mask
        assert torch.equal(q.sample(generated(0))[shown], step.x[shown])
        assert step.index < 3 or shown.double().mean() > 0.02
        x = step.x
    assert bool((x < 4).all())


def test_the_short_way_to_unmask_is_the_draw_from_the_whole_law() -> None:
    """The mask is the last state: the same uniform number gives the same token by the distribution function of all V + 1."""
    process = MaskedDiffusion(Cosine(), 6)
    x0 = torch.randint(6, (50, 7), generator=torch.Generator().manual_seed(1))
    x_t = process.corrupt(x0, tensor(0.6), generated(0))
    q = LogitsDenoiser(Random(6), process)(x_t, tensor(0.6))
    for t, s in ((0.6, 0.5), (0.6, 0.1), (0.6, 0.0), (1.0, 0.3)):
        step = process.reverse(q, x_t, tensor(t), tensor(s))
        drawn = step.sample(generated(7))
        assert torch.equal(drawn, Categorical(step.logits).sample(generated(7)))
        assert bool((drawn != x_t).any()) and (s > 0) == bool((drawn == process.mask).any())


@every_kind
def test_schedules_that_leave_tokens_are_refused(kind: type[CategoricalDiffusion]) -> None:
    with pytest.raises(ValueError, match="alpha must be 0 at t = 1"):
        kind(VPLinear(), 3)
    with pytest.raises(ValueError, match="at least one value"):
        kind(Flow(), 0)
    with pytest.raises(TypeError, match="Categorical"):
        kind(Flow(), 3).reverse(Gaussian(torch.zeros(1, 2)), torch.zeros(1, 2).long(), tensor(0.5), tensor(0.2))


@every_kind
def test_it_is_described_and_built_again(kind: type[CategoricalDiffusion]) -> None:
    from langevin.diffusion import Process

    process = kind(Cosine(s=0.0), 7)
    assert build(describe(process), Process) == process
    assert describe(process)["name"] == {MaskedDiffusion: "masked", UniformDiffusion: "uniform"}[kind]
    assert kind in names("langevin.diffusion.process", Process).values()


# --- the sampler's exact law ---


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("num_values", "length"), [(3, 2), (5, 2)])
def test_masked_ancestral_misses_by_one_nth(num_values: int, length: int, seed: int) -> None:
    """Both tokens appear in one step with probability 1 / N, and are then independent."""
    p = oracles.table(num_values, length, seed)
    denoiser = CategoricalDenoiser(MaskedDiffusion(Flow(), num_values), p)
    apart = oracles.total_variation(p, oracles.independent(p))
    for n in (1, 2, 3, 4, 16, 64):
        assert abs(oracles.distance(denoiser, n) - apart / n) < 1e-14


@every_process
def test_one_token_is_exact_in_any_number_of_steps(process: CategoricalDiffusion) -> None:
    denoiser = CategoricalDenoiser(process, oracles.table(3, 1))
    for n in (1, 2, 7, 20):
        assert oracles.distance(denoiser, n) < 1e-14


@pytest.mark.parametrize("seed", range(3))
def test_uniform_ancestral_is_of_first_order(seed: int) -> None:
    denoiser = CategoricalDenoiser(UniformDiffusion(Flow(), 3), oracles.table(seed=seed))
    far = {n: oracles.distance(denoiser, n) for n in (16, 32, 64, 128)}
    slope = math.log(far[16] / far[128]) / math.log(8)
    assert abs(slope - 1) < 0.05, far


@every_process
def test_samples_have_the_samplers_law(process: CategoricalDiffusion) -> None:
    """The loop, the solver and the draws, by a chi-squared test."""
    denoiser = CategoricalDenoiser(process, oracles.table())
    times, num = Uniform()(process.schedule, 4), 20_000
    law, noise = oracles.sampler_law(denoiser, 2, times), generated(2)
    x = process.prior((num, 2), noise)
    *_, step = trajectory(denoiser, Ancestral(), x, times, noise=lambda i: noise)
    count = torch.bincount(step.x[:, 0] * 3 + step.x[:, 1], minlength=9)
    assert stats.chisquare(count, num * law.flatten()).pvalue > 1e-3


@every_kind
def test_a_batch_is_its_samples(kind: type[CategoricalDiffusion]) -> None:
    denoiser, times = LogitsDenoiser(Random(6), kind(Flow(), 6)), Uniform()(Flow(), 8)

    def draw(seeds: list[int]) -> Tensor:
        return sample(denoiser, Ancestral(), (5,), times, seeds=seeds)

    whole = draw(list(range(8)))
    assert whole.dtype == torch.int64 and len(whole.unique(dim=0)) > 4
    assert torch.equal(whole, torch.cat([draw([0, 1, 2]), draw([3, 4, 5, 6, 7])]))
    assert torch.equal(whole[[6, 1]], draw([6, 1]))


@every_kind
def test_resumed_is_uninterrupted(kind: type[CategoricalDiffusion]) -> None:
    denoiser, times, noise = LogitsDenoiser(Random(6), kind(Flow(), 6)), Uniform()(Flow(), 8), rng.keyed(range(4))
    run = partial(trajectory, denoiser, Ancestral(), denoiser.process.prior((4, 5), noise(0)), times, noise=noise)
    whole = list(run())
    for cut in (0, 3, 6):
        assert [s.x.tolist() for s in run(resume=whole[cut])] == [s.x.tolist() for s in whole[cut + 1 :]]


def test_solvers_of_numbers_say_that_they_are_not_for_tokens() -> None:
    denoiser = CategoricalDenoiser(MaskedDiffusion(Flow(), 3), oracles.table())
    with pytest.raises(TypeError, match="ancestral"):
        sample(denoiser, DPMpp(), (2,), Uniform()(Flow(), 4), seeds=[0])


class Counting(Denoiser):
    """An answer that depends on the label, and how many rows were asked for."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.process, self.rows = denoiser, denoiser.process, 0

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Categorical:
        self.rows += len(x_t)
        q = self.denoiser(x_t, t)
        return Categorical(q.logits if cond is None else q.logits * cond["label"][:, None, None])


@pytest.mark.parametrize("cond", [None, {"label": torch.arange(1.0, 9.0, dtype=F64)}])
def test_what_did_not_change_is_not_asked_again(cond: Condition | None) -> None:
    """The same samples, bit for bit, from at most L + 1 evaluations of a row instead of N."""
    counting = Counting(CategoricalDenoiser(MaskedDiffusion(Cosine(), 3), oracles.table(3, 4)))
    ends, rows = [], []
    remembering = Remembering(counting)
    for denoiser in (counting, remembering, remembering):
        counting.rows = 0
        ends.append(sample(denoiser, Ancestral(), (4,), Uniform()(Cosine(), 50), seeds=range(8), cond=cond))
        rows.append(counting.rows)
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
    assert rows[0] == 8 * 50 and max(rows[1:]) <= 8 * 5
    x, t = torch.tensor([[0, 3, 3, 3]]).repeat(8, 1), tensor(0.5)
    for given in (cond, {"label": torch.full((8,), 2.0, dtype=F64)}, None):
        assert torch.equal(remembering(x, t, given).logits, counting(x, t, given).logits)
    assert torch.equal(remembering(x[:2], t).logits, counting(x[:2], t).logits)
    with pytest.raises(TypeError, match="only masked tokens"):
        Remembering(CategoricalDenoiser(UniformDiffusion(Flow(), 3), oracles.table()))


# --- the posterior ---


def test_each_value_has_its_share_of_the_unit_interval() -> None:
    """To 1e-14, however rare it is; a value that cannot be is never drawn."""
    p = torch.tensor([0.0, 0.5, 1e-10, 0.0, 0.25, 1e-13, 0.25 - 1e-10 - 1e-13, 0.0], dtype=F64)
    q = Categorical(p.log().expand(1, 1, 8))
    edges = p.cumsum(0)
    for v in p.nonzero()[:, 0].tolist():
        for u in (edges[v] - p[v] + 1e-14, edges[v] - 1e-14):
            assert Categorical.sample(q, at(u)).item() == v
    assert q.sample(at(tensor(0.0))).item() == 1 and q.sample(at(tensor(1.0))).item() == 6


def test_the_numbers_it_draws_with_are_uniform_in_double_precision() -> None:
    for noise in (rng.keyed(range(2000))(0), generated(0)):
        u = rng.uniform_like(noise, torch.zeros(2000, 5, dtype=torch.int64))
        assert u.dtype == F64 and (u == u.float().double()).double().mean() < 0.01
        assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-4


def test_single_precision_gumbel_noise_is_biased_and_this_is_not() -> None:
    """A value of probability 1e-7 beside one other, each method's exact law.

    The race takes it where -log u1 < r (-log u0), r = p1 / p0: of the 2^24 numbers u1 that a float32 generator gives, counted for
    evenly spread u0. Ours takes it on an interval of float64 numbers, whose length is found by bisection.
    """
    rare = 1e-7
    q = Categorical(torch.tensor([[[math.log(rare), math.log1p(-rare)]]], dtype=F64))
    gumbel = -torch.log(-torch.log(torch.arange(2**24 - 4096, 2**24).float() / 2**24))  # the last ones; below, never
    other = -torch.log(-torch.log((torch.arange(200_000).float() + 0.5) / 200_000))
    needed = other + (q.logits[0, 0, 1] - q.logits[0, 0, 0]).float()
    wins = len(gumbel) - torch.searchsorted(gumbel, needed, right=True)
    assert wins.max() < len(gumbel)
    race = wins.double().mean().item() / 2**24
    assert race / rare < 0.8  # a quarter of them never appears

    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if q.sample(at(tensor(middle))).item() == 0 else (low, middle)
    assert abs(low / rare - 1) < 1e-7


def test_log_prob_and_divergence() -> None:
    p, r = oracles.table(4, 2, 0).reshape(1, 4, 4), oracles.table(4, 2, 1).reshape(1, 4, 4)
    q, other = Categorical(p.log()), Categorical(r.log() + 3.0)
    rows, others = p[0] / p[0].sum(1, keepdim=True), r[0] / r[0].sum(1, keepdim=True)
    x0 = torch.tensor([[1, 3, 0, 2]])
    expected = sum(rows[i, v].log() for i, v in enumerate(x0[0]))
    torch.testing.assert_close(q.log_prob(x0)[0], torch.as_tensor(expected))
    assert abs(q.kl(other).item() - sum(stats.entropy(a, b) for a, b in zip(rows, others, strict=True))) < 1e-12
    assert q.kl(q).item() == 0
    point = Categorical.point(x0, 4)
    torch.testing.assert_close(point.kl(q), -q.log_prob(x0))
    assert torch.equal(point.sample(generated(0)), x0)


# --- likelihood ---


@every_process
def test_bound_of_the_exact_denoiser_is_the_log_probability(process: CategoricalDiffusion) -> None:
    for seed in (0, 1):
        assert oracles.bound_error(CategoricalDenoiser(process, oracles.table(seed=seed))) < 1e-6


@every_process
def test_rate_is_the_limit_of_the_steps_divergence(process: CategoricalDiffusion) -> None:
    """nll_rate and reverse are written apart; as the step falls, KL / step tends to the rate, linearly."""
    denoiser = Blurred(CategoricalDenoiser(process, oracles.table()), 0.7)
    x0, x_t = oracles.states(3, 2).repeat(2, 1), oracles.states(3, 2)
    x_t = torch.cat([x_t.roll(1, 0), x_t])
    if isinstance(process, MaskedDiffusion):
        x_t = torch.where(x0 == x_t, x0, process.mask)
    t = tensor(0.43)
    q = denoiser(x_t, t)
    rate = process.nll_rate(q, x0, x_t, t)
    steps = [token_step_kl(process, q, x0, x_t, t, t - h) / h for h in (1e-4, 2e-4)]
    torch.testing.assert_close(2 * steps[0] - steps[1], rate, rtol=1e-5, atol=1e-6)


@every_process
def test_the_gap_of_an_imperfect_denoiser_is_a_divergence(process: CategoricalDiffusion) -> None:
    """Averaged over the data it is, at each time, the weighted divergence from the exact posterior; so never negative."""
    p = oracles.table()
    exact = CategoricalDenoiser(process, p)
    data, noisy = oracles.states(3, 2), oracles.states(len(process.limit), 2)
    for keep, t in product((0.9, 0.3), map(tensor, (0.1, 0.5, 0.9))):
        wrong = Blurred(exact, keep)
        gap = (p.flatten() @ (oracles.mean_rates(wrong, 2, t) - oracles.mean_rates(exact, 2, t))).item()
        law = p.flatten() @ oracles.forward_law(process, data, t)
        alpha, rate = process.schedule.alpha(t), -process.schedule.alpha_rate(t)
        true, model = exact(noisy, t), wrong(noisy, t)
        if isinstance(process, MaskedDiffusion):
            each = torch.where(true.probs > 0, true.probs * (true.log_probs - model.log_probs), 0.0).sum(-1)
            expected = rate / (1 - alpha) * (law @ torch.where(noisy == 3, each, 0.0).sum(1))
        else:
            assert isinstance(process, UniformDiffusion)
            s, r = process.ratios(true, noisy, t), process.ratios(model, noisy, t)
            other = noisy[..., None] != torch.arange(3)
            each = torch.where(other, r - s + s * torch.log(s / r), 0.0).sum((1, 2))
            expected = rate / alpha / 3 * (law @ each)
        assert gap > 0 and abs(gap / expected.item() - 1) < 1e-9
    worse = oracles.bound(Blurred(exact, 0.7), 2, nodes=32)
    assert (p * (worse + p.log())).sum() > 0


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_concrete_score_is_the_ratio_of_the_marginals(t: float) -> None:
    for schedule in SCHEDULES.values():
        denoiser = CategoricalDenoiser(UniformDiffusion(schedule, 3), oracles.table())
        assert oracles.score_error(denoiser, tensor(t)) < 1e-12


def test_concrete_score_of_masked_tokens_is_the_posterior() -> None:
    """p_t(mask -> v) / p_t = alpha / (1 - alpha) p(v | x_t): SEDD and MDLM say the same (Ou et al. 2024, eq. 3.2)."""
    process, t = MaskedDiffusion(Cosine(), 3), tensor(0.6)
    denoiser = CategoricalDenoiser(process, oracles.table())
    every = oracles.states(4, 2)
    law = (denoiser.log_table.exp().flatten() @ oracles.forward_law(process, oracles.states(3, 2), t)).reshape(4, 4)
    alpha = process.schedule.alpha(t)
    for x in every[every[:, 1] == 3]:
        ratio = law[x[0], :3] / law[x[0], 3]
        torch.testing.assert_close(ratio, alpha / (1 - alpha) * denoiser(x[None], t).probs[0, 1], rtol=1e-12, atol=0)


def test_masked_denoiser_does_not_depend_on_time_nor_the_bound_on_the_schedule() -> None:
    ends = []
    for schedule in SCHEDULES.values():
        denoiser = CategoricalDenoiser(MaskedDiffusion(schedule, 3), oracles.table())
        every = oracles.states(4, 2)
        assert torch.equal(denoiser(every, tensor(0.2)).probs, denoiser(every, tensor(1.0)).probs)
        ends.append(oracles.bound(Blurred(denoiser, 0.6), 2))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-7)


@every_kind
def test_draws_of_the_bound_have_its_mean(kind: type[CategoricalDiffusion]) -> None:
    denoiser, num = CategoricalDenoiser(kind(Flow(), 3), oracles.table()), 20_000
    x0 = torch.tensor([[1, 2]]).expand(num, 2)
    draws = token_nll(denoiser, x0, rng.uniforms(num, 0), generated(3))
    exact = -denoiser.log_prob(x0[:1]).item()
    assert abs(draws.mean().item() - exact) < 4 * draws.std().item() / math.sqrt(num)
    per_token = bound_loss(denoiser, x0, rng.uniforms(num, 0), generated(3))
    torch.testing.assert_close(2 * per_token, draws)


def test_cross_entropy_is_that_of_the_posterior() -> None:
    process, num = MaskedDiffusion(Flow(), 3), 20_000
    denoiser = CategoricalDenoiser(process, oracles.table())
    p = oracles.table()
    x0, t = torch.tensor([[1, 2]]).expand(num, 2), torch.full((num,), 0.5, dtype=F64)
    found = cross_entropy_loss(denoiser, x0, t, generated(4))
    # neither masked, the first, the second, both: 1/4 each
    first, second = p[:, 2] / p[:, 2].sum(), p[1] / p[1].sum()
    both = p.sum(1)[1].log() + p.sum(0)[2].log()
    exact = -(first[1].log() + second[2].log() + both) / 4 / 2
    assert abs(found.mean().item() - exact.item()) < 4 * found.std().item() / math.sqrt(num)


@every_kind
def test_units_of_text(kind: type[CategoricalDiffusion]) -> None:
    """A uniform text of V values costs log V nats a token, whatever is known of the rest."""
    denoiser = CategoricalDenoiser(kind(Flow(), 4), torch.ones(4, 4, 4))
    rates = token_rates(oracles.bound(denoiser, 3, nodes=64)[0, 1, 2].item(), num_tokens=3, num_characters=12)
    assert abs(rates.nats_per_token - math.log(4)) < 1e-6
    assert abs(rates.bits_per_token - 2) < 1e-6 and abs(rates.perplexity - 4) < 1e-5
    assert rates.bits_per_character is not None and abs(rates.bits_per_character - 0.5) < 1e-6
    assert token_rates(5.0, 3).bits_per_character is None


def test_the_table_gives_its_own_samples_and_probabilities() -> None:
    denoiser = CategoricalDenoiser(MaskedDiffusion(Flow(), 3), 5 * oracles.table())
    p, num = oracles.table(), 20_000
    x = denoiser.sample(num, generated(5))
    count = torch.bincount(x[:, 0] * 3 + x[:, 1], minlength=9)
    assert stats.chisquare(count, num * p.flatten()).pvalue > 1e-3
    torch.testing.assert_close(denoiser.log_prob(oracles.states(3, 2)), p.flatten().log())
    with pytest.raises(ValueError, match="table"):
        CategoricalDenoiser(MaskedDiffusion(Flow(), 3), torch.ones(3, 4))


# --- networks ---


class Random(nn.Module):
    """Some fixed function of every token and of the noise level."""

    def __init__(self, num_values: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("table", 2 * torch.randn(num_values + 1, num_values, generator=generator))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        rows: Tensor = self.get_buffer("table")[x]
        return rows + rows.sum(1, keepdim=True).sin() + c_noise[:, None, None]


class Small(nn.Module):
    """Every token looks at every other through two layers."""

    def __init__(self, num_states: int, num_values: int, length: int) -> None:
        super().__init__()
        self.size = (length, num_values)
        self.embed = nn.Embedding(num_states, 16)
        self.layers = nn.Sequential(nn.Linear(16 * length + 1, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU())
        self.leave = nn.Linear(96, length * num_values)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        h = self.layers(torch.cat([self.embed(x).flatten(1), c_noise[:, None]], 1))
        out: Tensor = self.leave(h).reshape(-1, *self.size)
        return out


@every_kind
def test_a_network_that_knows_the_others_law_is_the_exact_denoiser(kind: type[CategoricalDiffusion]) -> None:
    """What it says of each token given the others, and Bayes' rule for the token itself."""
    process = kind(Flow(), 3)
    exact = CategoricalDenoiser(process, oracles.table())
    t = tensor(0.3)

    class Others(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
            assert c_noise.shape == (len(x),) and bool((c_noise == c_noise[0]).all())
            assert abs(c_noise[0].item() - math.log(0.3 / 0.7) / 4) < 1e-6
            evidence = process.evidence(x, t)
            first = (exact.log_table + evidence[:, None, 1]).logsumexp(2)
            second = (exact.log_table + evidence[:, 0, :, None]).logsumexp(1)
            return torch.stack([first, second], 1)

    every = oracles.states(len(process.limit), 2)
    found = LogitsDenoiser(Others(), process)(every, t)
    torch.testing.assert_close(found.probs, exact(every, t).probs, rtol=1e-12, atol=1e-14)


@every_kind
def test_half_precision_outputs_are_widened(kind: type[CategoricalDiffusion]) -> None:
    denoiser = LogitsDenoiser(Random(5).bfloat16(), kind(Flow(), 5))
    assert denoiser(torch.tensor([[0, 3, 4]]), tensor(0.5)).logits.dtype == torch.float32


@every_kind
def test_a_network_learns_a_known_law(kind: type[CategoricalDiffusion]) -> None:
    """End to end, measured exactly: the bound lies within .01 nats of the entropy, and so do the samples of the data."""
    torch.manual_seed(0)
    p, process, num_steps = oracles.table(), kind(Flow(), 3), 800
    exact = CategoricalDenoiser(process, p)
    denoiser = LogitsDenoiser(Small(len(process.limit), 3, 2), process)
    optimizer = torch.optim.Adam(denoiser.parameters(), 4e-3)

    def gap() -> float:
        """Mean excess of the bound over the exact denoiser's at the same nodes, where it is nowhere negative."""
        return (p * (oracles.bound(denoiser, 2, nodes=16) - oracles.bound(exact, 2, nodes=16))).sum().item()

    before = gap()
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / num_steps)
        x0 = exact.sample(1024, generated(2 * step))
        loss = bound_loss(denoiser, x0, rng.uniforms(1024, step), generated(2 * step + 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    law = oracles.sampler_law(denoiser, 2, torch.linspace(1, 0, 65, dtype=F64)).detach()
    divergence = (p * (p / law).log()).sum().item()
    assert before > 0.1 and 0 < gap() < 0.01 and 0 < divergence < 0.01, (before, gap(), divergence)

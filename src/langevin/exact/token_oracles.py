"""What token diffusion is measured by, exactly: with few values and tokens every state is listed and nothing is sampled.

sampler_law     ancestral sampling is a Markov chain over the K^L states; its law is a product of matrices
bound           the expectation over x_t is a sum, the integral over t Gaussian quadrature
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from langevin.diffusion import CategoricalDiffusion, Denoiser, Schedule, UniformDiffusion
from langevin.diffusion.schedules import Cosine, Flow
from langevin.exact.categorical import CategoricalDenoiser

SCHEDULES: dict[str, Schedule] = {"linear": Flow(), "cosine": Cosine(s=0)}


def table(num_values: int = 3, length: int = 2, seed: int = 0) -> Tensor:
    """(num_values,) * length random probabilities, float64: exponential numbers over their sum."""
    rng = torch.Generator().manual_seed(seed)
    p = torch.empty((num_values,) * length, dtype=torch.float64).exponential_(generator=rng)
    return p / p.sum()


def states(num: int, length: int) -> Tensor:
    """(num^length, length) int64: every sequence, in the order of a flattened table."""
    return torch.cartesian_prod(*[torch.arange(num)] * length).reshape(-1, length)


def _products(each: Tensor, to: Tensor) -> Tensor:
    """(N, M) the probability of each sequence of `to` (M, L), where token i of row n has the law each[n, i] (N, L, K)."""
    chosen = [each[:, i, to[:, i]] for i in range(to.shape[1])]
    return torch.stack(chosen).prod(0)


def forward_law(process: CategoricalDiffusion, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
    """(N, K^L) q(x_t | x_s = x), x (N, L); s = 0 where it is not given."""
    return _products(process.transition(t, s)[x], states(len(process.limit), x.shape[1]))


def sampler_law(denoiser: Denoiser, length: int, times: Tensor) -> Tensor:
    """(V, ..., V) the probabilities with which ancestral sampling from t = 1 gives each sequence.

    Raises:
        ValueError: a sequence that is not of the V values has a probability above 1e-12.
    """
    process = denoiser.process
    assert isinstance(process, CategoricalDiffusion)
    num = len(process.limit)
    every = states(num, length)
    law = _products(process.limit.expand(1, length, num), every)[0]
    for t, s in pairwise(times.double()):
        law = law @ _products(process.reverse(denoiser(every, t), every, t, s).probs, every)
    clean = law.reshape((num,) * length)[(slice(process.num_values),) * length]
    if (law.sum() - clean.sum()).abs() > 1e-12:
        raise ValueError("some tokens are still masked")
    return clean


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the sum of |p - q|."""
    return 0.5 * (p - q).abs().sum().item()


def independent(p: Tensor) -> Tensor:
    """The table (V, ..., V) whose tokens have the same laws as those of p, each by itself."""
    out = torch.ones_like(p)
    for i in range(p.ndim):
        rest = tuple(k for k in range(p.ndim) if k != i)
        out = out * p.sum(rest, keepdim=True) if rest else out * p
    return out


def mean_rates(denoiser: Denoiser, length: int, t: Tensor) -> Tensor:
    """(V^L,) the expectation over x_t of the integrand of the bound at t, for every x0."""
    process = denoiser.process
    assert isinstance(process, CategoricalDiffusion)
    data, noisy = states(process.num_values, length), states(len(process.limit), length)
    p = forward_law(process, data, t)
    i, j = p.nonzero(as_tuple=True)
    rates = process.nll_rate(denoiser(noisy[j], t), data[i], noisy[j], t)
    return torch.zeros(len(data), dtype=torch.float64).index_add(0, i, p[i, j] * rates.detach().double())


def bound(denoiser: Denoiser, length: int, nodes: int = 64) -> Tensor:
    """(V, ..., V) nats: the upper bound of -log p(x0) for every x0; Gauss-Legendre in u, t = u^2 (3 - 2 u), smooth at both ends."""
    process = denoiser.process
    assert isinstance(process, CategoricalDiffusion)
    z, w = np.polynomial.legendre.leggauss(nodes)
    total = torch.zeros(process.num_values**length, dtype=torch.float64)
    for u, weight in zip((z + 1) / 2, w / 2, strict=True):
        t = torch.tensor(u * u * (3 - 2 * u), dtype=torch.float64)
        total = total + weight * 6 * u * (1 - u) * mean_rates(denoiser, length, t)
    return total.reshape((process.num_values,) * length)


def bound_error(denoiser: CategoricalDenoiser, nodes: int = 64) -> float:
    """Largest |bound + log p(x)| over every x."""
    return (bound(denoiser, denoiser.log_table.ndim, nodes) + denoiser.log_table).abs().max().item()


def distance(denoiser: CategoricalDenoiser, num_steps: int) -> float:
    """Total variation between the data and what ancestral sampling in equal steps of t gives."""
    times = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    p = denoiser.log_table.exp()
    return total_variation(sampler_law(denoiser, p.ndim, times), p)


def reverse_marginals(denoiser: CategoricalDenoiser, t: Tensor, s: Tensor) -> float:
    """Largest error of each token's law at s: reverse steps from x_t ~ q(x_t), against the closed form q(x_s)."""
    process, p = denoiser.process, denoiser.log_table.exp()
    assert isinstance(process, CategoricalDiffusion)
    num, length = len(process.limit), p.ndim
    data, noisy = states(process.num_values, length), states(num, length)
    at_t, at_s = (p.flatten() @ forward_law(process, data, u) for u in (t, s))
    step = process.reverse(denoiser(noisy, t), noisy, t, s).probs
    worst = 0.0
    for i in range(length):
        rest = tuple(k for k in range(length) if k != i)
        exact = at_s.reshape((num,) * length)
        exact = exact.sum(rest) if rest else exact
        worst = max(worst, (at_t @ step[:, i] - exact).abs().max().item())
    return worst


def chain(process: CategoricalDiffusion, num_steps: int = 40) -> float:
    """Chain steps from 0 to each t against the closed form."""
    times = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    law, worst = torch.eye(len(process.limit), dtype=torch.float64), 0.0
    for s, t in pairwise(times):
        law = law @ process.transition(t, s)
        worst = max(worst, (law - process.transition(t)).abs().max().item())
    return worst


def score_error(denoiser: CategoricalDenoiser, t: Tensor) -> float:
    """Largest relative error of the concrete score: p_t(y) / p_t(x) from the posterior against the marginals themselves."""
    process, p = denoiser.process, denoiser.log_table.exp()
    assert isinstance(process, UniformDiffusion)
    every = states(process.num_values, p.ndim)
    marginal = p.flatten() @ forward_law(process, every, t)
    found, worst = process.ratios(denoiser(every, t), every, t), 0.0
    for i in range(p.ndim):
        for v in range(process.num_values):
            other = every.clone()
            other[:, i] = v
            place = (other * process.num_values ** torch.arange(p.ndim - 1, -1, -1)).sum(1)
            worst = max(worst, (found[:, i, v] * marginal / marginal[place] - 1).abs().max().item())
    return worst

"""The formulas of figures beside other people's, on the same features: no network has a part in it.

Features are skewed, heavy-tailed and correlated, in unequal counts. What differs by definition is mapped by its formula.
"""

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import softmax
from scipy.stats import wasserstein_distance
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from langevin.evaluation.metrics.frechet import Frechet, frechet, moments
from langevin.evaluation.metrics.kernel import LEAST_SCALE, Kernel, kernel_distance
from langevin.evaluation.metrics.prdc import K, Prdc, prdc
from langevin.evaluation.metrics.sliced_wasserstein import frames, sliced_wasserstein
from langevin.evaluation.neighbours import neighbours
from langevin.evaluation.pretrained.inception import inception_score

DIMS = (64, 300)
REAL, MADE = 700, 530


def draw(dim, real=REAL, made=MADE):
    """Real (n, d) and generated (m, d): log-normal components and some of Student's t, mixed; the generated ones a little
    otherwise, so that no figure is at the end of its range."""
    rng = np.random.default_rng(dim)
    mix, other = np.eye(dim) + rng.normal(size=(2, dim, dim)) / dim**0.5
    a = np.exp(0.5 * rng.normal(size=(real, dim))) + 0.2 * rng.standard_t(5, size=(real, dim))
    b = np.exp(0.47 * rng.normal(size=(made, dim))) + 0.25 * rng.standard_t(5, size=(made, dim)) + 0.02
    return a @ mix, b @ (0.95 * mix + 0.05 * other)


def agree(what, found, expected, rel=1e-6):
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    off = float((np.abs(found - expected) / np.maximum(np.abs(expected), 1e-300)).max())
    print(f"\n| {what} | {off:.1e} |")
    assert off <= rel, what


def peer(name):
    return pytest.importorskip(name, exc_type=ImportError)


def tensors(*arrays):
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays)


# Frechet


def overlap_of_items(a, b):
    """tr (A^1/2 B A^1/2)^1/2 without covariances or roots: the singular values of X Y^T, X and Y centred and scaled."""
    x, y = ((z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (a, b))
    return scipy.linalg.svdvals(x @ y.T).sum()


def by_items(a, b):
    spread = sum(z.var(0, ddof=1).sum() for z in (a, b))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + spread - 2 * overlap_of_items(a, b)


@pytest.mark.parametrize("dim", DIMS)
def test_frechet_as_scipy(dim):
    a, b = draw(dim)
    (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * np.trace(root).real
    agree(f"frechet, scipy sqrtm, {dim}", frechet(a, b), expected)
    agree(f"frechet, scipy svdvals of items, {dim}", frechet(a, b), by_items(a, b), 1e-9)


def test_the_frechet_figure_is_that_distance():
    (found,) = Frechet().measure(*draw(64))
    agree("Frechet().measure, 64", found.estimate.value, by_items(*draw(64)))


@pytest.mark.parametrize("counts", [(120, 90), (250, 400)])
def test_frechet_of_fewer_items_than_dimensions(counts):
    """Singular covariances: the plain formula takes roots of eigenvalues that are noise, and loses half its digits."""
    a, b = draw(300, *counts)
    agree(f"frechet, scipy svdvals of items, 300, {counts}", frechet(a, b), by_items(a, b), 1e-12)
    (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    plain = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * np.trace(root).real
    agree(f"frechet, scipy sqrtm, 300, {counts}", frechet(a, b), plain)


@pytest.mark.parametrize("dim", DIMS)
def test_frechet_as_torchmetrics(dim):
    fid = peer("torchmetrics.image.fid")
    a, b = draw(dim)
    (mean_a, cov_a), (mean_b, cov_b) = (tensors(*moments(x)) for x in (a, b))
    agree(f"frechet, torchmetrics _compute_fid, {dim}", frechet(a, b), fid._compute_fid(mean_a, cov_a, mean_b, cov_b))
    network = torch.nn.Identity()
    network.num_features = dim
    whole = fid.FrechetInceptionDistance(network)
    for part in np.array_split(a, 3):
        whole.update(*tensors(part), real=True)
    whole.update(*tensors(b), real=False)
    agree(f"frechet, torchmetrics FrechetInceptionDistance, {dim}", frechet(a, b), whole.compute())


@pytest.mark.parametrize("dim", DIMS)
def test_frechet_of_float32_features_as_torchmetrics(dim):
    """It sums in float64 what it is given in float32, and rounds the distance to float32, 2^-24 of itself."""
    fid = peer("torchmetrics.image.fid")
    a, b = (x.astype(np.float32) for x in draw(dim))
    network = torch.nn.Identity()
    network.num_features = dim
    whole = fid.FrechetInceptionDistance(network)
    whole.update(*tensors(a), real=True)
    whole.update(*tensors(b), real=False)
    found = frechet(a.astype(np.float64), b.astype(np.float64))
    agree(f"frechet of float32, torchmetrics, {dim}", found, whole.compute(), 2**-24 + 1e-9)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", ["cleanfid.fid.frechet_distance", "pytorch_fid.fid_score.calculate_frechet_distance"])
def test_frechet_as_clean_fid_and_pytorch_fid(name, dim):
    module, function = name.rsplit(".", 1)
    theirs = getattr(peer(module), function)
    a, b = draw(dim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SciPy's, of an argument of sqrtm
        expected = theirs(*moments(a), *moments(b))
    agree(f"frechet, {name}, {dim}", frechet(a, b), expected)


@pytest.mark.parametrize("dim", DIMS)
def test_frechet_as_torch_fidelity(dim):
    fid = peer("torch_fidelity.metric_fid")
    a, b = draw(dim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sides = (fid.fid_features_to_statistics(x) for x in tensors(a, b))
        expected = fid.fid_statistics_to_metric(*sides, verbose=False)[fid.KEY_METRIC_FID]
    agree(f"frechet, torch-fidelity, {dim}", frechet(a, b), expected)


# the kernel distance


def kernels(a, b):
    pairs = ((a, a), (b, b), (a, b))
    return (polynomial_kernel(x, y, degree=3, gamma=1 / a.shape[1], coef0=1) for x, y in pairs)


def off_diagonal(k):
    return (k.sum() - np.trace(k)) / len(k) / (len(k) - 1)


@pytest.mark.parametrize("dim", DIMS)
def test_kernel_distance_as_scikit_learn(dim):
    a, b = draw(dim)
    aa, bb, ab = kernels(a, b)
    expected = off_diagonal(aa) + off_diagonal(bb) - 2 * ab.mean()
    agree(f"kernel, scikit-learn, {dim}", kernel_distance(a, b).value, expected)


def torchmetrics_mmd(a, b):
    return float(peer("torchmetrics.image.kid").poly_mmd(*tensors(a, b)))


def torch_fidelity_mmd(a, b):
    kid = peer("torch_fidelity.metric_kid")
    return (
        kid.kernel_mmd(a, b) if hasattr(kid, "kernel_mmd") else kid.polynomial_mmd(a, b, 3, None, 1)
    )  # from 0.4, to 0.3


def clean_fid_kid(a, b):
    """One subset of everything: the order alone is left to chance."""
    return peer("cleanfid.fid").kernel_distance(a, b, num_subsets=1, max_subset_size=len(a))


EQUAL = pytest.mark.parametrize("theirs", [torchmetrics_mmd, torch_fidelity_mmd, clean_fid_kid])


@EQUAL
@pytest.mark.parametrize("dim", DIMS)
def test_kernel_distance_at_equal_counts(theirs, dim):
    a, b = draw(dim, MADE, MADE)
    agree(f"kernel, {theirs.__name__}, {dim}", kernel_distance(a, b).value, theirs(a, b))


@EQUAL
@pytest.mark.parametrize("dim", DIMS)
def test_the_kernel_figure_is_theirs_of_standardised_features(theirs, dim):
    """Standard deviations of the real items, of weak components a tenth of the strongest; the first 400 of the real."""
    real, made = draw(dim, REAL, 400)
    real[:, -1] *= 1e-3
    (found,) = Kernel(most=400).measure(real, made)
    scale = np.maximum(real.std(0), LEAST_SCALE * real.std(0).max())
    expected = theirs(*((x - real.mean(0)) / scale for x in (made, real[:400])))
    agree(f"Kernel().measure, {theirs.__name__}, {dim}", found.estimate.value, expected)


@EQUAL
def test_kid_by_subsets_is_the_kernel_distance_in_the_mean(theirs):
    """The mean of an unbiased estimate over all subsets of s items is that of all items: KID of random subsets is this distance
    and the noise of the draw."""
    a, b = draw(64, 7, 5)
    subsets = itertools.product(itertools.combinations(range(7), 4), itertools.combinations(range(5), 4))
    mean = np.mean([theirs(a[list(x)], b[list(y)]) for x, y in subsets])
    agree(f"kernel, mean over all subsets, {theirs.__name__}", kernel_distance(a, b).value, mean, 1e-9)


@pytest.mark.parametrize("dim", DIMS)
def test_kid_as_torch_fidelity_on_its_own_subsets(dim):
    kid = peer("torch_fidelity.metric_kid")
    a, b = draw(dim)
    said = {"kid_subsets": 8, "kid_subset_size": 100, "rng_seed": 3, "verbose": False}
    found = kid.kid_features_to_metric(*tensors(a, b), **said)
    rng = np.random.RandomState(3)
    draws = [[rng.choice(n, 100, replace=False) for n in (REAL, MADE)] for _ in range(8)]
    ours = [kernel_distance(a[x], b[y]).value for x, y in draws]
    agree(f"kernel, torch-fidelity KID mean, {dim}", np.mean(ours), found[kid.KEY_METRIC_KID_MEAN])
    agree(f"kernel, torch-fidelity KID deviation, {dim}", np.std(ours), found[kid.KEY_METRIC_KID_STD])


def test_the_biased_estimate_counts_every_item_with_itself():
    """Biased = U + (mean k(x, x) - mean k(x, x')) / n for either side."""
    kid = peer("torch_fidelity.metric_kid")
    a, b = draw(64, MADE, MADE)
    aa, bb, ab = kernels(a, b)
    own = sum((np.trace(k) / MADE - off_diagonal(k)) / MADE for k in (aa, bb))
    expected = kid.mmd2(aa, ab, bb, mmd_est="biased")
    agree("kernel, torch-fidelity biased", kernel_distance(a, b).value + own, expected)


def test_the_u_statistic_leaves_out_pairs_of_one_number():
    """torch-fidelity's third estimate takes no k(a_i, b_i): U + 2 (mean k(a_i, b_i) - mean k(a_i, b_j)) / (n - 1) less."""
    kid = peer("torch_fidelity.metric_kid")
    a, b = draw(64, MADE, MADE)
    aa, bb, ab = kernels(a, b)
    more = 2 * (np.trace(ab) / MADE - ab.mean()) / (MADE - 1)
    expected = kid.mmd2(aa, ab, bb, mmd_est="u-statistic")
    agree("kernel, torch-fidelity u-statistic", kernel_distance(a, b).value + more, expected)


@pytest.mark.parametrize("dim", DIMS)
def test_kernel_distance_of_float32_features_is_off_by_rounding_of_the_kernel(dim):
    """Peers keep the kernel in float32: they are off by 2^-24 of its mean, of which the distance is a small difference."""
    a, b = (x.astype(np.float32) for x in draw(dim, MADE, MADE))
    ours = kernel_distance(a, b).value
    aa, bb, ab = kernels(a.astype(np.float64), b.astype(np.float64))
    step = 2**-24 * (aa.mean() + bb.mean() + 2 * ab.mean())
    theirs = torchmetrics_mmd(a, b)
    print(
        f"\n| kernel in float32, torchmetrics, {dim} | {abs(theirs / ours - 1):.1e} ({abs(theirs - ours) / step:.1f} steps) |"
    )
    assert abs(theirs - ours) < 16 * step  # rounding of the products, the cube and the sums


# precision, recall, density, coverage


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("k", [3, K])
def test_prdc_as_its_authors_package(dim, k):
    theirs = peer("prdc")
    a, b = draw(dim)
    expected = theirs.compute_prdc(a, b, k)
    found = prdc(a, b, k)._asdict()
    assert all(0.02 < share < 0.98 for share in (found["precision"], found["recall"]))
    agree(f"prdc, prdc, {dim}, k = {k}", [found[name] for name in expected], list(expected.values()))


def test_prdc_counts_the_rim_of_a_ball_and_its_authors_package_does_not(monkeypatch):
    """Kynkaanniemi et al., equation 1, have <=; the package has <. On whole numbers a closed ball of squared radius r is the
    open one of r + 1/2."""
    theirs = peer("prdc.prdc")
    a, b = np.random.default_rng(0).integers(0, 3, (2, 150, 6)).astype(float)
    b[b == 2] = 4
    open_balls, radii = theirs.compute_prdc(a, b, 3), theirs.compute_nearest_neighbour_distances
    monkeypatch.setattr(
        theirs, "compute_nearest_neighbour_distances", lambda x, k: np.sqrt(np.rint(radii(x, k) ** 2) + 0.5)
    )
    closed_balls, found = theirs.compute_prdc(a, b, 3), prdc(a, b, 3)._asdict()
    agree("prdc with ties, prdc", list(found.values()), [closed_balls[name] for name in found])
    assert all(found[name] > open_balls[name] for name in found)


@pytest.mark.parametrize("dim", DIMS)
def test_precision_and_recall_as_torch_fidelity(dim):
    prc = peer("torch_fidelity.metric_prc")
    a, b = draw(dim)
    said = {"prc_neighborhood": 3, "prc_batch_size": 200, "save_cpu_ram": False, "verbose": False}
    expected = prc.prc_features_to_metric(*tensors(b, a), **said)
    agree(
        f"precision and recall, torch-fidelity, {dim}", prdc(a, b, 3)[:2], [expected["precision"], expected["recall"]]
    )


@pytest.mark.parametrize("dim", DIMS)
def test_prdc_as_scikit_learns_neighbours(dim):
    a, b = draw(dim)
    balls = NearestNeighbors(n_neighbors=K).fit(a), NearestNeighbors(n_neighbors=K).fit(b)
    radius_a, radius_b = (
        one.kneighbors()[0][:, -1] for one in balls
    )  # of the set itself: no item is its own neighbour
    gap = cdist(a, b)
    inside, reached = gap <= radius_a[:, None], gap <= radius_b
    expected = [inside.any(0).mean(), reached.any(1).mean(), inside.sum() / K / MADE, inside.any(1).mean()]
    agree(f"prdc, scikit-learn, {dim}", prdc(a, b), expected)
    found = Prdc(most=10_000).measure(a, b)  # equal counts
    agree(f"Prdc().measure, {dim}", [n.estimate.value for n in found], prdc(a[:MADE], b))


# sliced Wasserstein


@pytest.mark.parametrize("dim", DIMS)
def test_sliced_wasserstein_as_scipys_assignment(dim):
    """Items repeated to a common count, and matched at the least sum of squares: the definition of W_2^2."""
    a, b = draw(dim, 36, 24)
    ways = frames(dim, 2, 0)[:, :40]
    found, expected = [], []
    for way in ways.T:
        x, y = np.repeat(a @ way, 2), np.repeat(b @ way, 3)
        cost = (x[:, None] - y) ** 2
        expected.append(cost[linear_sum_assignment(cost)].mean())
        found.append(sliced_wasserstein((a @ way)[:, None], (b @ way)[:, None]))
    agree(f"sliced wasserstein, scipy assignment, {dim}", found, expected, 1e-9)


@pytest.mark.parametrize("dim", DIMS)
def test_sliced_wasserstein_by_quantile_functions_that_give_scipys_distance(dim):
    """The same quantile functions give SciPy's W_1 from the absolute difference, and W_2^2 from the square."""
    a, b = draw(dim, 70, 53)
    q = (np.arange(70 * 53) + 0.5) / (70 * 53)
    ways = frames(dim, 128, 5)
    x, y = (np.quantile(z @ ways, q, axis=0, method="inverted_cdf") for z in (a, b))
    first = [wasserstein_distance(a @ way, b @ way) for way in ways.T]
    agree(f"W_1 of the quantile functions, scipy, {dim}", np.abs(x - y).mean(0), first)
    agree(f"sliced wasserstein, quantile functions, {dim}", sliced_wasserstein(a, b, seed=5), ((x - y) ** 2).mean())


# neighbours


@pytest.mark.parametrize("dim", DIMS)
def test_neighbours_as_scikit_learn(dim):
    """To float32's rounding of the values, and the same items where no two are nearer to each other than that."""
    known, asked = draw(dim)
    found = neighbours(asked, known, 16)
    distance, index = NearestNeighbors(n_neighbors=16, algorithm="brute").fit(known).kneighbors(asked)
    agree(f"neighbours, scikit-learn, {dim}", found.distance, distance)
    clear = np.diff(distance, axis=1).min(1) > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.index[clear], index[clear])


# the inception score


def logits(count, classes):
    return 2 * draw(classes, count, count)[0]


@pytest.mark.parametrize("classes", DIMS)
def test_inception_score_as_torchmetrics(classes):
    """It shuffles first, and its deviation is the unbiased one: sqrt(S / (S - 1)) times as large for S parts."""
    score = peer("torchmetrics.image.inception").InceptionScore
    items = logits(600, classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it keeps all features
        whole = score(torch.nn.Identity(), splits=10)
    whole.update(*tensors(items))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = whole.compute()
        torch.manual_seed(0)
        order = torch.randperm(600).numpy()
    mean, deviation = inception_score(softmax(items[order], axis=1), 10)
    agree(f"inception score, torchmetrics, {classes}", (mean, deviation * math.sqrt(10 / 9)), expected)


@pytest.mark.parametrize("classes", DIMS)
@pytest.mark.parametrize("count", [600, 607])
def test_inception_score_as_torch_fidelity(classes, count):
    """Part i of S begins at item i n // S; here the first n mod S parts have the odd items: the same where S divides n."""
    isc = peer("torch_fidelity.metric_isc")
    items = logits(count, classes)
    expected = isc.isc_features_to_metric(*tensors(items), splits=10, shuffle=False).values()
    found = softmax(items, axis=1)
    parts = [found[i * count // 10 : (i + 1) * count // 10] for i in range(10)]
    each = [inception_score(part, 1)[0] for part in parts]
    agree(f"inception score, torch-fidelity, {classes}, {count}", (np.mean(each), np.std(each)), list(expected))
    if count == 600:
        assert inception_score(found, 10) == pytest.approx((np.mean(each), np.std(each)), rel=1e-12)

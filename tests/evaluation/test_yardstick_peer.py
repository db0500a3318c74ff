"""The formulas beside an independent yardstick for Fashion-MNIST samples, where that lies next to the repository."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from langevin.evaluation.metrics.frechet import frechet, frechet_distance, moments
from langevin.evaluation.metrics.kernel import kernel_distance
from langevin.evaluation.metrics.prdc import prdc

PEER = Path(__file__).parents[3] / "shared" / "bench" / "quality.py"
pytestmark = pytest.mark.skipif(not PEER.exists(), reason="no peer beside the repository")


@pytest.fixture(scope="module")
def peer():
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("peer_quality", PEER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture(scope="module")
def real(peer):
    """Its own classifier features of 1,200 held-out pictures."""
    pictures, _ = peer.load.idx(split="t10k")
    return peer.features(peer.network(), pictures[:1200])[0]


def test_frechet(peer, real):
    a, b = real[:600], real[600:] * 1.1
    assert frechet(a, b) == pytest.approx(peer.frechet(*moments(a), *moments(b)), rel=1e-6)


def test_frechet_with_its_kept_statistics(peer, real):
    stats = np.load(PEER.parent / "fashion_stats.npz")
    mean, cov = moments(real)
    theirs = peer.frechet(mean, cov, stats["mean"], stats["cov"])
    assert frechet_distance(mean, cov, stats["mean"], stats["cov"]) == pytest.approx(theirs, rel=1e-6)


def test_kernel_distance(peer, real):
    z = (real - real.mean(0)) / real.std(0)
    assert 1000 * kernel_distance(z[:500], z[500:]).value == pytest.approx(
        peer.kid(z[:500], z[500:]), rel=1e-6, abs=1e-9
    )


def test_precision_and_recall(peer, real):
    a, b = real[:600], real[600:] * 1.1
    assert prdc(a, b)[:2] == pytest.approx(peer.precision_recall(a, b), abs=2 / 600)  # it works in float32

"""Real runs whose verdict is known: few pictures are learned by heart, many are not; the best weights are published."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import langevin
from langevin.evaluation.likelihood import bits_per_dim
from langevin.evaluation.verdict import judge, looks_of
from langevin.recipes.console import Console
from langevin.recipes.train import train
from langevin.training import checkpoint

FASHION = Path(__file__).parents[3] / "shared/data/fashion-mnist"
SMALL = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [32, 64], attention: []}"}


def _rows(run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_sixty_four_pictures_are_overfitted_the_run_ends_and_the_best_is_published(in_tmp):
    """The model is likelier on 300 pictures that no one saw, held out or not, than the last checkpoint."""
    pictures = np.random.default_rng(0).permutation((load_digits().images * 15.9).astype(np.uint8))
    np.save("few.npy", pictures[:64])
    run = train("few.npy", steps=2500, settings=SMALL, console=Console("quiet"))
    rows = _rows(run)
    verdict = judge(looks_of(rows))
    assert verdict.state == "overfitting"
    assert verdict.stop
    assert 64 <= verdict.since < 800
    assert rows[-1]["step"] < 2500
    figures = json.loads((run.path / "figures.json").read_text())
    assert figures["verdict"]["line"] == verdict.line
    assert verdict.line in (run.path / "model/README.md").read_text()
    assert verdict.line in (run.path / "run.log").read_text()
    assert (run.path / "progress.png").stat().st_size > 10_000
    last = langevin.load(checkpoint.folders(run.path)[0])
    ours, theirs = (bits_per_dim(model, pictures[64:364], draws=4).items for model in (run.model, last))
    apart = theirs - ours
    assert apart.mean() > 3 * apart.std() / np.sqrt(len(apart))
    assert checkpoint.best(run.path) != checkpoint.folders(run.path)[0]


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="Fashion-MNIST is not there")
def test_ten_thousand_pictures_are_not_overfitted(in_tmp):
    import gzip

    raw = gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes())
    np.save("many.npy", np.frombuffer(raw[16:], np.uint8).reshape(-1, 28, 28)[:10_000])
    quick = {"network": "{name: unet, channels: 1, dims: 2, patch: 4, widths: [32, 64], attention: []}"}
    run = train("many.npy", steps=1000, settings=quick, console=Console("quiet"))
    looks = looks_of(_rows(run))
    assert len(looks) >= 4
    assert {judge(looks[: k + 1]).state for k in range(2, len(looks))} == {"learning"}
    assert judge(looks).gain.value > 0

"""A classifier beside a run: it knows the data through noise, its gradient leads samples to their label, and it is refused damaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from langevin.cli.main import run as command
from langevin.data.png import read_metadata
from langevin.errors import RefusedError, UsageError
from langevin.model import load
from langevin.recipes.classifier import load_classifier, surprise, train_classifier
from langevin.recipes.console import Console
from langevin.recipes.sample import replay, sample
from langevin.recipes.train import train
from tests.models import digits_like

QUICK = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}", "batch": "24"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("classified")
    pictures, labels = digits_like(300)
    np.savez(root / "halves.npz", images=pictures, labels=labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        made = train(root / "halves.npz", steps=100, console=Console("quiet"), settings=QUICK, runs=root / "runs")
    train_classifier(made.path, steps=100, console=Console("quiet"))
    return made.path


def test_it_tells_the_halves_apart_through_noise_and_not_through_nothing_but_noise(run):
    classifier, model = load_classifier(run), load(run)
    pictures, labels = digits_like(200, seed=1)  # unseen ones
    x0 = model.codec.encode(torch.from_numpy(pictures)[..., None])
    classes = np.array([model.classes.index(str(k)) for k in labels])
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    schedule = classifier.process.schedule

    def nats(ratio: float) -> tuple[float, float]:
        t = schedule.inverse(-2 * torch.tensor(ratio, dtype=torch.float64).log())
        cond = {"label": torch.from_numpy(classes)}
        lost = surprise(classifier, x0, t, lambda like: noise, None, cond=cond)
        right = classifier(classifier.process.corrupt(x0, t, lambda like: noise), t).argmax(1).numpy() == classes
        return lost.mean().item(), right.mean()

    assert nats(0.2)[1] > 0.98
    assert nats(0.2)[0] < 0.2 < nats(60.0)[0] + 0.2 and nats(60.0)[1] < 0.75
    unknown = {"label": torch.full((200,), 2)}
    assert surprise(classifier, x0, torch.tensor(0.5), lambda like: noise, None, cond=unknown).eq(0).all()


def test_its_gradient_leads_samples_to_their_label_and_they_are_made_again(run, in_tmp):
    def right(scale: float, label: str) -> float:
        out = Path(f"{label}-{scale:g}.npz")
        sample(run, 64, label=[label], steps=8, classifier_scale=scale, out=out, say=lambda _: None)
        pictures = np.load(out)["images"].reshape(64, 8, 8).astype(float)
        brighter = (pictures[:, :, 4:].mean((1, 2)) > pictures[:, :, :4].mean((1, 2))).astype(int)
        return float((brighter == int(label)).mean())

    free, guided = ([right(scale, label) for label in ("0", "1")] for scale in (0.0, 2.0))
    assert abs(sum(free) - 1) < 0.1  # the denoiser is not told: what is right for one label is wrong for the other
    assert sum(guided) > sum(free) + 0.2 and guided[0] > free[0] and guided[1] > free[1]
    (made,) = sample(run, 4, label=["1"], steps=3, classifier_scale=2.0, out=Path("g.png"), say=lambda _: None)
    (again,) = replay(made, run, out=Path("h.png"), say=lambda _: None)
    assert read_metadata(made)["pictures"][0]["classifier_scale"] == 2.0
    assert np.array_equal(np.asarray(Image.open(made)), np.asarray(Image.open(again)))


def test_what_cannot_be_is_said(run, in_tmp, capsys):
    with pytest.raises(UsageError):
        train_classifier(run, steps=2, console=Console("quiet"))  # nothing is overwritten
    with pytest.raises(UsageError, match="no run"):
        train_classifier("nothing")
    with pytest.raises(UsageError, match="alone"):
        sample(run, 1, classifier_scale=2.0, guidance=3.0, out=Path("x.png"))
    assert command(["classifier", "nothing"]) == 2
    assert command(["sample", str(run), "-n", "1", "--classifier-scale", "1", "--steps", "2", "--out", "c.png"]) == 0
    capsys.readouterr()


def test_a_damaged_one_is_refused(run, tmp_path):
    broken = tmp_path / "runs"
    shutil.copytree(run, broken)
    file = broken / "classifier" / "config.json"
    file.write_text(file.read_text().replace("unet", "unbt"))
    with pytest.raises(RefusedError):
        load_classifier(broken)
    shutil.rmtree(broken / "classifier")
    with pytest.raises(UsageError, match="langevin classifier"):
        load_classifier(broken)

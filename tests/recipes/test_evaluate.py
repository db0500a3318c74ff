"""`langevin evaluate`: of a run, of two, of folders; copies are told; nothing is overwritten."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from langevin.errors import DataError, UsageError
from langevin.evaluation.figures import Yardstick
from langevin.recipes.console import Console
from langevin.recipes.evaluate import METRICS, evaluate
from langevin.recipes.train import train

QUICK = {"network": "{name: unet, channels: 1, dims: 2, patch: 1, widths: [8, 8], attention: []}", "batch": "12"}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    return (data.images * 15).astype(np.uint8)[order], data.target[order]


@pytest.fixture(scope="module")
def folders(digits, tmp_path_factory) -> Path:
    """real/CLASS/*.png (900 digits) and new/CLASS/*.png (400 others)."""
    root = tmp_path_factory.mktemp("digits")
    for k, (picture, label) in enumerate(zip(*digits, strict=True)):
        if k < 1300:
            target = root / ("real" if k < 900 else "new") / f"{label}" / f"{k:04d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(target)
    return root


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        made = train(folders / "real", console=Console("quiet"), settings=QUICK, steps=40)
        return made.path.resolve()


@pytest.fixture(autouse=True)
def _little_learning(monkeypatch):
    monkeypatch.setattr("langevin.evaluation.learned.ITEMS", 6_400)
    monkeypatch.setattr("langevin.evaluation.classes.BUDGET", 3_200)
    monkeypatch.setattr("langevin.recipes.evaluate.BITS_ITEMS", 16)
    monkeypatch.setattr("langevin.recipes.evaluate.BITS_FLOW", 4)


def judged(*given, **settings):
    return evaluate(*given, console=Console("quiet"), **settings)


def by_name(found):
    return {f.name: f for f in found.figures}


def test_a_run_gets_a_page_and_its_facts(run, in_tmp):
    copy = shutil.copytree(run, in_tmp / "copy-1")
    found = judged(copy)
    assert found.path == copy / "report.html"
    facts = json.loads((copy / "report.json").read_text())
    assert facts == json.loads(json.dumps(found.report))
    figures = by_name(found)
    assert {
        "frechet[pca]",
        "frechet[gradients]",
        "frechet[classifier]",
        "kernel[classifier]",
        "told apart[classifier]",
    } <= set(figures)
    assert {"label agreement[classifier]", "class score[classifier]", "trained on samples", "spectrum [dB]"} <= set(
        figures
    )
    assert figures["frechet[classifier]"].gap > 3  # 40 steps are too few
    assert any(s["level"] == "bad" for s in facts["verdict"])
    assert {b["how"].split(",")[0] for b in facts["bits"]} == {"evidence bound", "probability flow"}
    assert facts["training"]["steps"] == 40
    assert facts["training"]["minutes"] > 0
    page = found.path.read_text()
    assert page.count("<img") == 5
    assert page.count("<svg") == 2
    assert "langevin evaluate" in page
    (copy / "report-1.json").write_text("mine")
    again = judged(
        copy, quick=True, lang="zh"
    )  # the page that is there stays, and so does what has half of the next name
    assert again.path == copy / "report-2.html"
    assert (copy / "report-1.json").read_text() == "mine"
    assert "结论" in again.path.read_text()
    assert found.path.read_text() == page


def test_a_model_inside_a_run_is_held_against_the_runs_data(run, in_tmp):
    copy = shutil.copytree(run, in_tmp / "copy-1")
    found = judged(copy / "model", quick=True, out=in_tmp / "page.html")
    assert found.report["data"]["fingerprint"] == (copy / "data.sha256").read_text()
    assert found.report["name"] == "copy-1"


def test_figures_are_those_of_the_yardstick(run, folders, in_tmp):
    """Pictures of a folder against those of another one, with no model: the same numbers by hand."""
    found = judged(real=folders / "real", generated=folders / "new", quick=True)
    assert found.path == Path("report.html")
    from langevin import data

    real, new = data.open(folders / "real"), data.open(folders / "new")
    train, held_out = (real.take(rows) for rows in (real.train_indices, real.held_out_indices))
    rows = np.random.default_rng(0).permutation(len(new))[:256]
    expected = Yardstick.of(train, held_out, 256, metrics=METRICS).measure(new.take(rows))
    assert list(found.figures[: len(expected)]) == expected
    assert by_name(found)["label agreement[gradients]"].value > 0.9
    verdict = {s["key"] for s in found.report["verdict"]}
    assert "say.new" in verdict
    assert verdict & {"say.like", "say.near"}


def test_copies_in_a_folder_are_named_with_their_sources(folders, in_tmp):
    target = in_tmp / "made"
    target.mkdir()
    from langevin import data

    real = data.open(folders / "real")
    rows = real.train_indices[:60]
    for k, row in enumerate(rows):
        Image.fromarray(real.items[row][..., 0]).save(target / f"{k}.png")
    found = judged(real=folders / "real", generated=target, quick=True)
    assert found.report["verdict"][0]["key"] == "say.copies" or "say.copies" in {
        s["key"] for s in found.report["verdict"]
    }
    pixels = found.report["copies"][0]
    assert pixels["named"] == 60
    assert {s["name"] for s in pixels["sources"]} <= {str(real.names[r]) for r in rows}
    assert len(pixels["sources"]) == 40


def test_noise_is_worse_than_a_run_and_the_same_run_is_not(run, folders, in_tmp):
    noise = in_tmp / "noise.npy"
    np.save(noise, np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8))
    found = judged(folders_copy := shutil.copytree(run, in_tmp / "a-1"), noise, quick=True)
    rows = {r["name"]: r for r in found.report["comparison"]["rows"]}
    assert rows["frechet[gradients]"]["better"] == "a"
    assert found.report["verdict"][0]["values"]["name"] == "a-1"
    same = judged(folders_copy, folders_copy, quick=True)
    assert {r["better"] for r in same.report["comparison"]["rows"]} == {""}
    assert same.report["comparison"]["name"] == "a-1 (2)"


def test_what_cannot_be_judged_is_said(run, folders, in_tmp):
    with pytest.raises(UsageError, match="give a run"):
        judged()
    with pytest.raises(UsageError, match="nothing real"):
        judged(generated=folders / "new")
    with pytest.raises(UsageError, match="no such model or run"):
        judged(run.parent / "real-2")
    with pytest.raises(UsageError, match="no report in"):
        judged(run, lang="fr")
    with pytest.raises(UsageError, match="names no weights"):
        judged(run, features=["inception"], quick=True)
    colours = in_tmp / "colours.npy"
    np.save(colours, np.zeros((40, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="generated pictures are"):
        judged(real=folders / "real", generated=colours, quick=True)
    (in_tmp / "page.html").write_text("mine")
    with pytest.raises(UsageError, match="something already"):
        judged(run, out=in_tmp / "page.html")
    assert (in_tmp / "page.html").read_text() == "mine"

"""The page: whole and well-formed HTML that fetches nothing, in both languages, with every number of its facts."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from langevin.errors import UsageError
from langevin.evaluation.report import render
from langevin.evaluation.report.words import LANGUAGES, WORDS, say
from langevin.recipes.exhibits import samples

VOID = {"wbr", "meta", "link", "img", "br", "path", "use", "rect", "circle", "line", "polygon", "polyline"}


class Reader(HTMLParser):
    """Opens and closes every element; keeps its text and whatever it would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.fetched, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("data:", "#"))]

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


FIGURE = {
    "name": "frechet[pca]",
    "value": 3.25,
    "floor": 1.5,
    "count": 100,
    "reference": "training (9)",
    "error": 0.1,
    "higher_is_better": False,
    "low": 1.25,
    "high": 2.75,
    "floor_error": 0.1,
    "gap": 12.4,
}
FACTS = {
    "langevin": "9.9",
    "made": "2031-02-03",
    "name": "cats <& dogs>",
    "seeds": [5, 8],
    "counts": {"count": 100, "train": 1234, "held_out": 567},
    "verdict": [
        {"level": "good", "key": "say.new", "values": {}},
        {"level": "bad", "key": "say.copies", "values": {"named": 7, "count": 100}},
    ],
    "figures": [FIGURE],
    "features": [{"name": "pca", "dim": 64, "digest": "ab" * 32, "accuracy": None}],
    "copies": [
        {
            "space": "pixels",
            "p": 0.03,
            "nearer": 0.81,
            "expected": 0.8,
            "named": 7,
            "count": 100,
            "sources": [{"name": "a/b.png", "times": 4, "repeats": 3}],
        }
    ],
    "suspects": [{"name": "a/b.png", "times": 3}],
    "bits": [{"value": 2.5, "error": 0.01, "how": "evidence bound", "count": 64}],
    "training": {
        "steps": 300,
        "minutes": 1.5,
        "parameters": 12345,
        "verdict": {"line": "learning: all well", "advice": "go on"},
        "curve": [[k, 1 / k, 1e-3] for k in range(1, 30)],
        "looks": [{"step": 10 * k, "held_out": 1 / k, "training": 0.9 / k} for k in range(1, 4)],
        "ratios": [0.1, 1.0, 10.0],
        "levels": [0.3, 0.2, 0.1],
        "training_levels": [0.2, 0.1, 0.1],
    },
    "curves": {},
    "course": {"steps": [0, 3, 6], "total": 6},
    "data": {
        "source": "cats",
        "items": 1801,
        "train": 1234,
        "held_out": 567,
        "shape": "8 x 8 x 1, uint8",
        "classes": {"tom & jerry": 1801},
        "duplicates": {"exact": 1, "near": 2, "leaks": 3},
        "rejected": 4,
        "fingerprint": "f" * 64,
    },
    "sampling": "12 steps of dpmpp",
    "config": {"seed": 3},
    "machine": "a machine",
    "seconds": {"training": 90.0, "evaluation": 200.0},
    "energy": {"kwh": 0.002, "watts": 20, "how": "energy.cpu"},
    "commands": ["langevin evaluate runs/cats-1 -n 100"],
}


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def pictures():
    picture = samples(np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1), dtype=np.uint8))
    return dict.fromkeys(("samples", "beside", "copies", "course", "moving"), picture)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_page_is_whole_and_fetches_nothing(lang, pictures):
    reader = read(render(FACTS, pictures, lang))
    assert reader.fetched == []
    assert "script" not in reader.tags
    assert reader.tags.count("img") == 5
    assert reader.tags.count("svg") == 2
    text = "".join(reader.text)
    for part in (
        "cats <& dogs>",
        "3.25",
        "1.25 – 2.75",
        "12.4",
        "a/b.png",
        "tom & jerry",
        "2.5000",
        "learning: all well",
        "9.9",
    ):
        assert part in text, part
    for number in ("1,234", "567", "12,345"):
        assert number in text


def test_chinese_stands_where_english_stood(pictures):
    english, chinese = ("".join(read(render(FACTS, pictures, lang)).text) for lang in LANGUAGES)
    assert "The model copies: 7 of 100" in english
    assert "模型在照抄：100 个样本中有 7 个" in chinese
    assert "训练样本" in chinese
    assert not set("样训练") & set(english)


def test_what_is_not_known_is_left_out():
    bare = {
        **FACTS,
        "training": None,
        "data": None,
        "bits": [],
        "copies": [],
        "suspects": [],
        "course": None,
        "seeds": None,
    }
    text = "".join(read(render(bare, {}, "en")).text)
    assert "Training" not in text
    assert "Likelihood" not in text


def test_a_comparison_names_both_and_the_better(pictures):
    rows = [
        {"name": "frechet[pca]", "a": 3.0, "b": 2.0, "error": 0.1, "p": 1e-9, "better": "b"},
        {"name": "recall[pca]", "a": 0.5, "b": 0.51, "error": 0.1, "p": 0.9, "better": ""},
    ]
    text = "".join(read(render({**FACTS, "comparison": {"name": "other", "rows": rows}}, pictures, "en")).text)
    assert "cats <& dogs> beside other" in text
    assert "other is better" in text
    assert "not told apart" in text


def test_curves_are_drawn_with_their_recommendation(pictures):
    cell = {"value": 2.0, "low": 1.0, "high": 3.0, "floor": 0.5}
    rows = [{"x": x, "figures": {"frechet[pca]": cell}} for x in (4, 8, 16)]
    page = render({**FACTS, "curves": {"steps": {"rows": rows, "recommended": {"x": 8}}}}, pictures, "en")
    reader = read(page)
    assert "recommended: 8" in "".join(reader.text)
    assert reader.tags.count("svg") == 3


def test_every_sentence_has_the_same_values_in_both_languages():
    from string import Formatter

    for key, pair in WORDS.items():
        names = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in pair]
        assert names[0] == names[1], key
        assert all(text.strip() for text in pair), key


def test_facts_are_json():
    assert json.loads(json.dumps(FACTS)) == FACTS


def test_another_language_is_refused():
    with pytest.raises(UsageError, match="no report"):
        render(FACTS, {}, "xx")
    with pytest.raises(ValueError, match="not in tuple"):
        say("xx", "title", name="x")

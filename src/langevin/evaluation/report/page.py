"""The page: HTML with its style, charts and pictures inside; no script, nothing fetched."""

import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from langevin.errors import UsageError
from langevin.evaluation.report import charts
from langevin.evaluation.report.words import LANGUAGES, WORDS, say

STYLE = resources.files(__package__).joinpath("style.css").read_text("utf-8")
MARKS = {"good": "✓", "fair": "•", "bad": "✗"}
KINDS = {b"\x89PNG": "image/png", b"RIFF": "image/webp", b"GIF8": "image/gif", b"\xff\xd8\xff": "image/jpeg"}


def render(report: Mapping[str, Any], pictures: Mapping[str, bytes], lang: str = "en") -> str:
    """The page of a report.

    Args:
        report: its facts, as they stand in report.json.
        pictures: PNG, WebP or GIF by name: samples, beside, course, moving, copies, and for a comparison samples-b, beside-b.
        lang: "en" or "zh".
    """
    if lang not in LANGUAGES:
        raise UsageError(f"there is no report in `{lang}`", help=f"use {' or '.join(LANGUAGES)}")
    body = "\n".join(_Page(report, pictures, lang).sections())
    title = html.escape(say(lang, "title", name=report["name"]))
    return (
        f'<!doctype html>\n<html lang="{"zh-Hans" if lang == "zh" else "en"}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n'
    )


class _Page:
    def __init__(self, report: Mapping[str, Any], pictures: Mapping[str, bytes], lang: str) -> None:
        self.report, self.pictures, self.lang = report, pictures, lang

    def say(self, key: str, **values: Any) -> str:
        return html.escape(say(self.lang, key, **values))

    def sections(self) -> Iterator[str]:
        report = self.report
        yield f"<header><h1>{self.say('title', name=report['name'])}</h1>"
        counts = {k: report["counts"][k] for k in ("count", "train", "held_out")}
        line = self.say("subtitle", **counts, made=report["made"], version=report["langevin"])
        yield f'<p class="quiet">{line}</p></header>'
        for name, part in (
            ("verdict", self._verdict),
            ("comparison", self._comparison),
            ("samples", self._samples),
            ("beside", self._beside),
            ("figures", self._figures),
            ("copies", self._copies),
            ("bits", self._bits),
            ("course", self._course),
            ("training", self._training),
            ("curves", self._curves),
            ("data", self._data),
            ("recipe", self._recipe),
            ("again", self._again),
        ):
            body = "\n".join(part())
            if body:
                other = report.get("comparison", {})
                title = self.say(name, a=report["name"], b=other.get("name", ""))
                yield f'<section id="{name}"><h2>{title}</h2>\n{body}\n</section>'

    def _verdict(self) -> Iterator[str]:
        rows = [
            f'<li class="{one["level"]}"><b>{MARKS[one["level"]]}</b>{self.say(one["key"], **one["values"])}</li>'
            for one in self.report["verdict"]
        ]
        yield f'<ul class="verdict">{"".join(rows)}</ul>'

    def _comparison(self) -> Iterator[str]:
        found = self.report.get("comparison")
        if not found:
            return
        yield f'<p class="note">{self.say("comparison.note", count=len(found["rows"]))}</p>'
        names = {"a": self.report["name"], "b": found["name"]}
        head = [self.say("figure"), html.escape(names["a"]), html.escape(names["b"]), ""]
        rows = []
        for row in found["rows"]:
            word = (
                self.say("comparison.better", name=names[row["better"]])
                if row["better"]
                else self.say("comparison.even")
            )
            cells = [
                self._meaning(row["name"]),
                _number(row["a"]),
                _number(row["b"]),
                f"{word}<small>p = {row['p']:.2g}</small>",
            ]
            rows.append(cells)
        yield _table(head, rows)
        yield from self._picture("samples-b", html.escape(names["b"]))

    def _samples(self) -> Iterator[str]:
        seeds = self.report.get("seeds")
        note = self.say("samples.note", first=seeds[0], last=seeds[1]) if seeds else ""
        yield from self._picture("samples", note)

    def _beside(self) -> Iterator[str]:
        yield from self._picture("beside", self.say("beside.note"))

    def _figures(self) -> Iterator[str]:
        rows = []
        for f in self.report["figures"]:
            arrow = "↑" if f["higher_is_better"] else "↓"
            interval = f"{_number(f['low'])} – {_number(f['high'])}" if f["low"] is not None else ""
            gap = self.say("gap.none")
            if f["gap"] is not None and f["gap"] > 2:
                gap = f'<span class="up">{f["gap"]:.1f}</span>'
            name = f"{self._meaning(f['name'], arrow)}"
            rows.append([name, f"{_number(f['value'])}<small>{interval}</small>", _number(f["floor"]), gap])
        head = [
            self.say("figure"),
            f"{self.say('generated')}<small>{self.say('interval')}</small>",
            self.say("floor"),
            self.say("gap"),
        ]
        yield _table(head, rows)
        yield f'<p class="note">↑ {self.say("higher")}, ↓ {self.say("lower")}. {self.say("figures.note")}</p>'
        yield f'<p class="note">{self.say("features")}:</p><ul class="note">'
        for one in self.report["features"]:
            known = one.get("accuracy")
            accuracy = say(self.lang, "features.accuracy", accuracy=known) if known is not None else ""
            yield f"<li>{self.say('features.row', name=one['name'], dim=one['dim'], digest=one['digest'][:16], accuracy=accuracy)}</li>"
        yield "</ul>"
        if not any("fid" in f["name"].split("[")[0] for f in self.report["figures"]):
            yield f'<p class="note">{self.say("features.fid")}</p>'

    def _meaning(self, name: str, arrow: str = "") -> str:
        key = f"of.{name.split('[')[0].split()[0].replace('clean-', '')}"
        meaning = self.say(key) if key in WORDS else ""
        return f"{html.escape(name).replace('[', '<wbr>[')} {arrow}<small>{meaning}</small>"

    def _copies(self) -> Iterator[str]:
        for audit in self.report["copies"]:
            space = say(self.lang, "pixels") if audit["space"] == "pixels" else audit["space"]
            values = {"space": space, "named": audit["named"], "count": audit["count"]}
            if audit["p"] is None:
                yield f"<p>{self.say('copies.alone', **values)}</p>"
            else:
                shares = {"nearer": audit["nearer"], "expected": audit["expected"]}
                yield f"<p>{self.say('copies.row', **values, **shares, p=say(self.lang, 'copies.p', p=audit['p']))}</p>"
            if audit["sources"]:
                names = ", ".join(
                    say(
                        self.lang,
                        "copies.source",
                        name=one["name"],
                        times=one["times"],
                        repeats=say(self.lang, "copies.repeats", count=one["repeats"]) if one["repeats"] > 1 else "",
                    )
                    for one in audit["sources"]
                )
                yield f"<p>{self.say('copies.sources', names=names)}</p>"
        if self.report.get("suspects"):
            names = ", ".join(f"{one['name']} ({one['times']}×)" for one in self.report["suspects"])
            yield f"<p>{self.say('copies.suspects', names=names)}</p>"
        yield from self._picture("copies", self.say("copies.sheet"))

    def _bits(self) -> Iterator[str]:
        for one in self.report.get("bits", ()):
            yield f"<p>{self.say('bits.row', **one)}</p>"

    def _course(self) -> Iterator[str]:
        course = self.report.get("course")
        if course:
            note = self.say("course.note", steps=", ".join(map(str, course["steps"])), total=course["total"])
            yield from self._picture("course", note)
            yield from self._picture("moving", "", "moving")

    def _training(self) -> Iterator[str]:
        training = self.report.get("training")
        if not training:
            return
        facts = self.say("training.facts", **{k: training[k] for k in ("steps", "minutes", "parameters")})
        line = f" {self.say('training.line', line=training['verdict']['line'])}" if training["verdict"] else ""
        yield f"<p>{facts}{line}</p>"
        drawn = [("chart.loss", charts.losses)] * bool(training["curve"] or training["looks"])
        drawn += [("chart.levels", charts.levels)] * bool(training.get("levels"))
        parts = (f'<div><p class="note">{self.say(key)}</p>{make(training, self.lang)}</div>' for key, make in drawn)
        yield f'<div class="charts">{"".join(parts)}</div>'

    def _curves(self) -> Iterator[str]:
        for name, curve in self.report.get("curves", {}).items():
            title = self.say(f"curves.{name}")
            best = (curve.get("recommended") or {}).get("x")
            note = f" · {self.say('curves.recommended', value=best)}" if best is not None else ""
            last = [n for n in curve["rows"][0]["figures"] if n.startswith("frechet")][-1:]
            shown = last + [n for n in curve["rows"][0]["figures"] if n.startswith(("precision", "recall", "label"))]
            parts = (
                f"<div>{charts.quality(curve['rows'], n, name in ('steps', 'training'), self.lang)}</div>"
                for n in shown
            )
            yield f'<h3>{title}{note}</h3><div class="charts">{"".join(parts)}</div>'

    def _data(self) -> Iterator[str]:
        data = self.report.get("data")
        if not data:
            return
        classes = ", ".join(f"{name} ({count:,})" for name, count in list(data["classes"].items())[:30])
        yield _pairs(
            [
                (self.say("data.source"), html.escape(data["source"])),
                (
                    self.say("data.items"),
                    self.say("data.items.value", **{k: data[k] for k in ("items", "train", "held_out")}),
                ),
                (self.say("data.shape"), html.escape(data["shape"])),
                (self.say("data.classes"), html.escape(classes) or self.say("data.none")),
                (self.say("data.duplicates"), self.say("data.duplicates.value", **data["duplicates"])),
                (self.say("data.rejected"), f"{data['rejected']:,}"),
                (self.say("data.fingerprint"), html.escape(data["fingerprint"][:32])),
            ]
        )

    def _recipe(self) -> Iterator[str]:
        report = self.report
        rows = [(self.say("recipe.machine"), html.escape(report["machine"]))]
        if report.get("sampling"):
            rows.insert(0, (self.say("recipe.sampling"), html.escape(report["sampling"])))
        spent = report["seconds"]
        times = {k: self._time(spent[k]) if spent.get(k) else "–" for k in ("training", "evaluation")}
        rows.append((self.say("recipe.time"), self.say("recipe.time.value", **times)))
        energy = report["energy"]
        how = say(self.lang, energy["how"])
        rows.append(
            (
                self.say("recipe.energy"),
                self.say("recipe.energy.value", kwh=energy["kwh"], watts=energy["watts"], how=how),
            )
        )
        yield _pairs(rows)
        if report.get("config"):
            text = html.escape(json.dumps(report["config"], indent=1, ensure_ascii=False))
            yield f"<details><summary>{self.say('recipe.settings')}</summary><pre>{text}</pre></details>"

    def _time(self, seconds: float) -> str:
        return (
            say(self.lang, "seconds", value=seconds) if seconds < 100 else say(self.lang, "minutes", value=seconds / 60)
        )

    def _again(self) -> Iterator[str]:
        yield f"<pre>{html.escape(chr(10).join(self.report['commands']))}</pre>"

    def _picture(self, name: str, caption: str, kind: str = "") -> Iterator[str]:
        body = self.pictures.get(name)
        if body is None:
            return
        mime = next(mime for head, mime in KINDS.items() if body.startswith(head))
        data = base64.b64encode(body).decode()
        note = f"<figcaption>{caption}</figcaption>" if caption else ""
        words = html.escape(caption, quote=True) if caption else name
        yield f'<figure class="{kind}"><img alt="{words}" src="data:{mime};base64,{data}">{note}</figure>'


def _number(value: Any) -> str:
    return f"{value:.3g}" if charts.finite(value) else "–"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(f"<{tag}{'' if k == 0 else ' class=number'}>{cell}</{tag}>" for k, cell in enumerate(cells))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _pairs(rows: Sequence[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in rows)}</dl>"

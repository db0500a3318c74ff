"""Every example of the documentation runs: the pages are the tests, and they fail with the page's file and line."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]  # README.zh.md: the same examples, see below


@dataclass(frozen=True)
class Block:
    """A fenced block: the line of its first line of code (from 1), and the reason to skip it, None where it runs."""

    page: Path
    line: int
    language: str
    code: str
    skip: str | None

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, text: str) -> Iterator[Block]:
    lines = text.splitlines()
    start, fence, language, skip, last = 0, "", "", None, ""
    for number, line in enumerate(lines, 1):
        opened = re.match(r"(`{3,})\s*(\S*)", line)
        if not fence and opened:
            found = re.fullmatch(r"<!-- skip:(.*)-->", last.strip())
            start, fence, language, skip = number + 1, opened[1], opened[2], found[1].strip() if found else None
        elif fence and line.strip() == fence:
            yield Block(page, start, language, "\n".join(lines[start - 1 : number - 1]), skip)
            fence = ""
        if line.strip():
            last = line


def commands(block: Block) -> Iterator[list[str]]:
    """The arguments of every `$ langevin ...` line; other commands are told to be skipped aloud or written as bash."""
    for offset, line in enumerate(block.code.replace("\\\n", "  ").splitlines()):
        if line.startswith("$ "):
            words = shlex.split(line[2:], comments=True)
            assert words[0] == "langevin", f"{block.page.name}:{block.line + offset}: `{words[0]}` is not run here"
            yield words[1:]


def run(block: Block, names: dict[str, object]) -> None:
    if block.language == "python":
        padded = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's own line
        exec(compile(padded, str(block.page), "exec"), names)
    else:
        from langevin.cli.main import run as langevin

        for arguments in commands(block):
            code = langevin(arguments)
            assert code == 0, f"{block.place}: `langevin {shlex.join(arguments)}` left with {code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    torch.set_num_threads(1)  # examples are small: on a busy machine two threads wait for each other
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, page.read_text()):
        if block.skip is not None:
            assert block.skip, f"{block.place}: a skipped example needs a reason"
        elif block.language in ("python", "console"):
            run(block, names)


def test_both_readmes_have_the_same_examples_in_the_same_order():
    english, chinese = ROOT / "README.md", ROOT / "README.zh.md"
    if not chinese.exists():
        pytest.skip("no Chinese README")
    pair = [[b for b in blocks(p, p.read_text()) if b.language not in ("", "text")] for p in (english, chinese)]
    for ours, theirs in zip_longest(*pair):  # what is only shown may be translated
        assert ours and theirs, f"one example more: {(ours or theirs).place}"
        assert (ours.language, ours.code) == (theirs.language, theirs.code), f"{ours.place} and {theirs.place} differ"


SAMPLE = """# Title
```python
x = 2
```
<!-- skip: needs a GPU -->

```python
undefined
```
```console
$ langevin sample a \\
    --seed 1   # a comment
made things
```
````text
```python
not code
```
````
"""


def test_blocks_are_found_with_their_lines_and_reasons():
    page = Path("page.md")
    found = list(blocks(page, SAMPLE))
    assert [(b.line, b.language, b.skip) for b in found] == [
        (3, "python", None),
        (8, "python", "needs a GPU"),
        (11, "console", None),
        (16, "text", None),
    ]
    assert list(commands(found[2])) == [["sample", "a", "--seed", "1"]]


def test_a_failing_example_names_page_and_line():
    block = next(blocks(Path("page.md"), "text\n\n```python\na = 1\nb = a / 0\n```\n"))
    with pytest.raises(ZeroDivisionError) as caught:
        run(block, {})
    last = caught.traceback[-1]
    assert (Path(last.path).name, last.lineno + 1) == ("page.md", 5)


def test_foreign_commands_are_refused():
    with pytest.raises(AssertionError, match=r"page.md:2: `pip` is not run"):
        list(commands(next(blocks(Path("page.md"), "```console\n$ pip install x\n```"))))

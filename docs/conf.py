"""The documentation's build: `sphinx-build -W docs OUT`. Pages are Markdown; the API pages come from the docstrings."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from langevin import __version__

project = "langevin"
author = "The langevin authors"
release = __version__
html_theme = "furo"
html_title = f"langevin {release}"

extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

apidoc_modules = [
    {
        "path": "../src/langevin",
        "destination": "api/",
        "module_first": True,
        "separate_modules": False,
        "automodule_options": {"members", "show-inheritance"},
    }
]
autodoc_default_options = {"ignore-module-all": True}  # a name is documented where it is defined
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # letters such as V name several things; annotations link to the first


def _plain(text: str) -> str:
    """Docstrings are plain text with formulas: what reStructuredText would take for markup is escaped."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    for k, part in enumerate(parts):
        if k % 2:
            parts[k] = f"``{part.strip('`')}``"
        else:
            parts[k] = re.sub(r"([*|])|(?<=\w)_(?!\w)", lambda m: "\\" + m[0], part)
    return "".join(parts)


def _docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Indented blocks of a module's docstring are formulas and tables: they are shown as they stand. Settings are described."""
    if what == "class" and getattr(obj, "model_fields", None):
        lines += ["", "Attributes:", *(f"    {k}: {f.description or '-'}" for k, f in obj.model_fields.items())]
    shown: list[str] = []
    verbatim = False
    for line in lines:
        belongs = what == "module" and (line.startswith("    ") or (verbatim and not line.strip()))
        if belongs != verbatim:
            shown += ["", "::", ""] if belongs else [""]
        verbatim = belongs
        shown.append(line if verbatim else _plain(line))
    lines[:] = shown


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon, which is at 500

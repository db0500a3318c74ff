"""The card of a model: what it is, how good it is and how to use it, for people."""

from typing import TYPE_CHECKING

from langevin import __version__, registry
from langevin.words import counted

if TYPE_CHECKING:
    from langevin.model import Model


def card(model: "Model") -> str:
    """README.md of a model folder."""
    about, parameters = model.about, sum(p.numel() for p in model.denoiser.network.parameters())
    lines = [
        f"# {about.get('name', 'A langevin model')}",
        "",
        f"A diffusion model made with langevin {__version__}.",
        "",
        f"- Samples: {model.modality}, {' x '.join(map(str, model.shape))} (channels first)"
        + (
            f", {counted(len(model.classes), 'class', 'classes')}: {', '.join(model.classes[:20])}"
            if model.classes
            else ", without labels"
        ),
        f"- Network: {registry.name_of(type(model.denoiser.network))}, {parameters:,} parameters",
    ]
    lines += [
        f"- {key.capitalize()}: {value}"
        for key, value in about.items()
        if isinstance(value, str | int | float) and key != "name"
    ]
    if figures := about.get("figures"):
        lines += ["", "## Figures", "", "| figure | value | real against real | count |", "|---|---|---|---|"]
        lines += [f"| {f['name']} | {f['value']:.4g} | {f['floor']:.4g} | {f['count']} |" for f in figures]
    lines += [
        "",
        "## How to use it",
        "",
        "```python",
        "import langevin",
        "",
        'images = langevin.load("path/to/this/folder").sample(n=16, seed=0)',
        "```",
        "",
        "Loading executes nothing: the folder holds JSON, text and safetensors alone.",
        "",
    ]
    return "\n".join(lines)

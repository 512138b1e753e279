"""The pages' Jinja2 templates, in assets/; values are escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sspo_verl.metrics.names import BAND_NAMES, BANDS
from sspo_verl.tools.report import style

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render(name: str, **values: object) -> str:
    """Render a template of assets/ with its values."""
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sspo_verl.tools.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _code, "sentence": sentence}
    environment.globals |= {
        "bands": BANDS,
        "band_names": BAND_NAMES,
        "colors": len(style.CURVES),
        "marker": style.marker_text,
        "variables": _variables(),
    }
    return environment


def _variables() -> Markup:
    from markupsafe import Markup

    light, dark = (" ".join(f"{name}: {pair[mode]};" for name, pair in style.variables().items()) for mode in range(2))
    return Markup(f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}")


def _code(text: str) -> Markup:
    """Convert `x` in text to code."""
    from markupsafe import Markup

    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))


def sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."

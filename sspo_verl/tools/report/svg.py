"""Converts a figure to SVG for embedding in a page with others: unique ids, the page's colours, named curves."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from sspo_verl.tools.report import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_POINTS_PER_INCH = 72  # a unit of matplotlib's SVG is a point


def embed(figure: Figure, key: str, title: str, description: str) -> tuple[str, dict[str, float]]:
    """(SVG element, position of its x axis). key: distinguishes its ids from those of other figures.

    Each artist whose gid is run-N-... becomes an element with data-run="N".
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    canvas = FigureCanvasSVG(figure)
    canvas.print_svg(out, metadata={"Date": None})
    root = ElementTree.fromstring(out.getvalue())
    for child in list(root):
        if child.tag == f"{{{_SVG}}}metadata":
            root.remove(child)
    for element in root.iter():
        _adapt(element, key)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{key}-title {key}-desc", "tabindex": "0"}
    for tag, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{key}-{tag}"})
        element.text = text
        root.insert(0, element)
    return _serialize(root), _place(figure)


def _adapt(element: ElementTree.Element, key: str) -> None:
    if "id" in element.attrib:
        if run := re.match(r"run-(\d+)-(\w+)", element.attrib["id"]):
            element.attrib |= {"data-run": run[1], "class": run[2]}
        element.attrib["id"] = f"{key}-{element.attrib['id']}"
    for name, value in element.attrib.items():
        if name == _LINK:
            value = value.replace("#", f"#{key}-")
        value = re.sub(r"url\(#", f"url(#{key}-", value)
        if name == "style":
            value = re.sub(r"font: ([\w.]+ )?([\d.]+px) [^;]*", r"font-size: \2", value)
            value = re.sub(r"font-family: [^;]*;?", "", value)
            value = re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), value)
        element.attrib[name] = value


_VARIABLES = {light: f"var({name})" for name, (light, _) in style.variables().items()}


def _place(figure: Figure) -> dict[str, float]:
    """The axis in SVG units, with y pointing downwards, and the steps at its ends."""
    axis = figure.axes[0]
    box = axis.get_position()
    width, height = (inches * _POINTS_PER_INCH for inches in figure.get_size_inches())
    first, last = axis.get_xlim()
    place = {"x0": width * box.x0, "x1": width * box.x1, "y0": height * (1 - box.y1), "y1": height * (1 - box.y0)}
    return {**{name: round(v, 2) for name, v in place.items()}, "first": float(first), "last": float(last)}


def _serialize(root: ElementTree.Element) -> str:
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode")

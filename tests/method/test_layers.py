"""The layout of the package: imports go one way, and there is no circle."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A module imports its own layer and those before it.
LAYERS = (
    (
        "segments",
        "segmenters",
        "loss",
        "bounds",
        "divergence",
        "sums",
        "derivatives",
        "advantage",
        "entropy",
    ),  # the method
    ("config", "band_settings", "names", "log", "extras"),
    ("metrics",),
    ("reward",),
    ("plugin", "conf"),
    ("tools",),
)
METHOD_MAY_IMPORT = {"torch", "jaxtyping", "typing_extensions"} | sys.stdlib_module_names


def module_names() -> dict[str, Path]:
    files = (ROOT / "sspo_verl").rglob("*.py")
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = module_names()


def imported_by(name: str) -> set[str]:
    """Imports of a module, anywhere in its text: modules of this package by their full names, others as written."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute here"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = names & MODULES.keys()
            found |= inner | ({node.module or ""} if names - inner else set())
    return found


IMPORTS = {name: imported_by(name) for name in MODULES}


def layer_of(name: str) -> int:
    top = name.removeprefix("sspo_verl").strip(".").split(".")[0]
    (found,) = (number for number, layer in enumerate(LAYERS) if top in layer)
    return found


def test_every_module_is_in_a_layer():
    names = {name for name in MODULES if name != "sspo_verl"}
    assert len({layer_of(name) for name in names}) == len(LAYERS)


def test_imports_go_one_way():
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others & (MODULES.keys() - {"sspo_verl"})
        if name == "sspo_verl" or layer_of(other) > layer_of(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_there_is_no_circle():
    graph = {name: (others & MODULES.keys()) - {name} for name, others in IMPORTS.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_rules_see_a_wrong_import(monkeypatch):
    monkeypatch.setitem(IMPORTS, "sspo_verl.loss", {"sspo_verl.tools.main"})
    with pytest.raises(AssertionError, match=r"sspo_verl.loss imports sspo_verl.tools.main"):
        test_imports_go_one_way()
    monkeypatch.setitem(IMPORTS, "sspo_verl.sums", {"sspo_verl.loss"})
    monkeypatch.setitem(IMPORTS, "sspo_verl.loss", {"sspo_verl.sums"})
    with pytest.raises(ValueError, match="cycle"):
        test_there_is_no_circle()


def test_the_method_needs_torch_alone():
    for name in (name for name in MODULES if name != "sspo_verl" and layer_of(name) == 0):
        foreign = {other.split(".")[0] for other in IMPORTS[name]} - {"sspo_verl"}
        assert foreign <= METHOD_MAY_IMPORT, name

"""Run a function right after a module was imported, without importing it.

verl loads its plugins in every process, most of which never touch the modules that a plugin extends. With this,
loading the plugin costs nothing, and an error in it surfaces where the extended module is imported.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType

Patch = Callable[[ModuleType], None]


class _AfterImport(importlib.abc.MetaPathFinder):
    def __init__(self):
        self.patches: dict[str, list[Patch]] = {}

    def find_spec(self, fullname, path=None, target=None):
        patches = self.patches.pop(fullname, None)
        if patches is None:
            return None
        spec = importlib.util.find_spec(fullname)  # the other finders: this one has just forgotten the name
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for patch in patches:
                patch(module)

        spec.loader.exec_module = exec_module
        return spec


_finder = _AfterImport()


def after_import(name: str, patch: Patch) -> None:
    """Call patch(module) once, right after the module `name` is imported; at once if it already is.

    What patch raises reaches whoever imports the module.
    """
    if name in sys.modules:
        patch(sys.modules[name])
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.patches.setdefault(name, []).append(patch)

"""Run a function right after a module was executed, without importing it.

verl loads its plugins in every process, most of which never touch the modules that a plugin extends. With this,
loading the plugin costs nothing, and an error in it surfaces where the extended module is imported.
"""

import copy
import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Patch = Callable[[ModuleType], None]

_lock = threading.Lock()
_patches: dict[str, list[Patch]] = {}
_executing: set[str] = set()  # modules whose code runs now, and whose patches follow
_asked = threading.local()  # .names: modules that the other finders are asked for now


class _PatchingLoader(importlib.abc.Loader):
    """Another loader, with the module's patches after its code. The module keeps that other loader."""

    def __init__(self, name: str, loader: Any):
        self._name = name
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        if "_loader" not in self.__dict__:  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        for holder, attribute in ((module, "__loader__"), (module.__spec__, "loader")):
            if getattr(holder, attribute, None) is self:
                setattr(holder, attribute, self._loader)
        with _lock:
            _executing.add(self._name)
        try:
            self._loader.exec_module(module)
        finally:
            with _lock:
                _executing.discard(self._name)
                patches = tuple(_patches[self._name])
        for patch in patches:
            patch(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what the other finders find, and has the patches run when that is executed. To look changes nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        asked = _asked.__dict__.setdefault("names", set())
        if fullname not in _patches or fullname in asked:
            return None
        asked.add(fullname)
        try:
            spec = self._found_by_others(fullname, path, target)
        finally:
            asked.discard(fullname)
        if spec is None or not hasattr(spec.loader, "exec_module"):
            return spec
        spec = copy.copy(spec)  # a finder may hand out the same one again
        if isinstance(spec.loader, importlib.util.LazyLoader):
            lazy: Any = copy.copy(spec.loader)  # stays lazy: the patches wait for the module's code, too
            lazy.loader = _PatchingLoader(fullname, lazy.loader)
            spec.loader = lazy
        else:
            spec.loader = _PatchingLoader(fullname, spec.loader)
        return spec

    def _found_by_others(self, fullname, path, target) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None


_finder = _Finder()


def after_import(name: str, patch: Patch) -> None:
    """Call patch(module) after each execution of the module `name`: once for an import, again for a reload.

    If the module is already imported, patch is called at once. What patch raises reaches whoever imports the module,
    which then is not imported.
    """
    with _lock:
        _patches.setdefault(name, []).append(patch)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        module = None if name in _executing else sys.modules.get(name)
    if module is not None:
        patch(module)

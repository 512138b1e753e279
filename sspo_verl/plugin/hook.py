"""Post-import hooks: run a function right after a module is executed, without importing it.

verl loads its plugins in every process, and most processes never use the modules that a plugin extends. With hooks,
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
_executing: set[str] = set()  # modules whose code is running and whose patches will follow
_asked = threading.local()  # .names: modules that the other finders are being asked for


class _PatchingLoader(importlib.abc.Loader):
    """Wraps a loader to run the module's patches after its code. The module keeps the original loader."""

    def __init__(self, name: str, loader: Any):
        self._name = name
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        if "_loader" not in self.__dict__:  # while being copied or unpickled
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
    """Finds what the other finders find, and makes its execution run the patches. Looking it up has no side effects."""

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
        spec = copy.copy(spec)  # a finder may return the same one again
        if isinstance(spec.loader, importlib.util.LazyLoader):
            lazy: Any = copy.copy(spec.loader)  # stays lazy: the patches also wait for the module's code
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

    If the module is already imported, patch is called immediately. An exception in patch propagates to the importer,
    and the module is then not imported.
    """
    with _lock:
        _patches.setdefault(name, []).append(patch)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        module = None if name in _executing else sys.modules.get(name)
    if module is not None:
        patch(module)

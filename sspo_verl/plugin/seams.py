"""Tries the hooks of `register` one by one against an installed verl, for `sspo doctor` and scripts/canary.py.

Runs in its own process, before anything of verl is imported: python -m sspo_verl.plugin.seams
"""

from __future__ import annotations

import importlib
import json
import os
import sys


def seams() -> dict[str, str | None]:
    """{"verl's module, by our function": error or None}, in the order of `register`.

    Tries each one separately, even if others fail. Raises RuntimeError if verl was already imported with this plugin,
    because a hook that does not fit would have raised then.
    """
    if "sspo_verl.plugin.register" in sys.modules:
        raise RuntimeError("sspo_verl is loaded in this process: try the seams in a separate process.")
    from sspo_verl.plugin import hook

    wanted = []
    install, hook.after_import = hook.after_import, lambda name, patch: wanted.append((name, patch))
    try:
        importlib.import_module("sspo_verl.plugin.register")
    finally:
        hook.after_import = install
    return {f"{name}, by {patch.__module__}.{patch.__name__}": _error(name, patch) for name, patch in wanted}


def _error(name: str, patch) -> str | None:
    try:
        patch(importlib.import_module(name))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"
    import verl

    print(json.dumps({"version": verl.__version__, "file": verl.__file__, "seams": seams()}))

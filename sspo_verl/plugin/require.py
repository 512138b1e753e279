"""Looks up verl's functions and checks their parameters; an unsupported verl is refused."""

from __future__ import annotations

import inspect
from typing import Any

SUPPORTED = "verl 0.9.1"


def require(owner, name: str, parameters: tuple[str, ...]) -> Any:
    """verl's function `name`, if it exists and takes `parameters`; else RuntimeError, naming the version."""
    function = getattr(owner, name, None)
    if callable(function) and set(parameters) <= set(inspect.signature(function).parameters):
        return function
    import verl

    raise RuntimeError(
        f"sspo_verl relies on {owner.__name__}.{name}({', '.join(parameters)}), which verl {verl.__version__} "
        f"does not have. This version of sspo_verl supports {SUPPORTED}: install that verl, or a newer sspo_verl."
    )

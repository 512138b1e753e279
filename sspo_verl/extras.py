"""The optional extras [math], [gym] and [tools] of this package, and the errors where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

# What setup.py's `extras_require` installs, by the modules that are imported.
MODULES = {
    "math": ("math_verify", "latex2sympy2_extended", "antlr4", "regex"),
    "gym": ("reasoning_gym", "regex"),
    "tools": ("click", "rich", "matplotlib", "jinja2"),
}


class MissingExtra(ModuleNotFoundError):
    """A part of this package needs modules that an extra of it installs."""


def require(extra: str, user: str) -> None:
    """Check that an extra is installed, before the work that needs it.

    Args:
        extra: "math", "gym" or "tools".
        user: What needs it: the subject of the message.

    Raises:
        MissingExtra: It is not; the message names the modules and the command that installs them.
    """
    missing = [module for module in MODULES[extra] if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtra(
            f"{user} needs {', '.join(missing)}, which {verb} not installed: pip install 'sspo_verl[{extra}]'"
            f" (in a checkout: pip install '.[{extra}]')"
        )

"""The optional extras [math], [gym] and [tools] of this package, and the error raised when one is missing."""

from __future__ import annotations

from importlib.util import find_spec

# What setup.py's `extras_require` installs, as the modules that are imported.
MODULES = {
    "math": ("math_verify", "latex2sympy2_extended", "antlr4", "regex"),
    "gym": ("reasoning_gym", "regex"),
    "tools": ("click", "rich", "matplotlib", "jinja2"),
}


class MissingExtra(ModuleNotFoundError):
    """Modules from one of this package's extras are needed but not installed."""


def require(extra: str, user: str) -> None:
    """Check that an extra is installed before work that needs it starts.

    Args:
        extra: "math", "gym" or "tools".
        user: What needs it: the subject of the error message.

    Raises:
        MissingExtra: If it is not installed; the message names the modules and the command that installs them.
    """
    missing = [module for module in MODULES[extra] if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtra(
            f"{user} needs {', '.join(missing)}, which {verb} not installed: pip install 'sspo_verl[{extra}]'"
            f" (in a checkout: pip install '.[{extra}]')"
        )

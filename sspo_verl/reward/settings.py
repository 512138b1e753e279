"""Checks reward.custom_reward_function.reward_kwargs before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sspo_verl.extras import require

FUNCTION = "reward.custom_reward_function"
KEY = f"{FUNCTION}.reward_kwargs"
# Our reward functions: the module, the extra it needs, and its settings.
_COMMON = ("answer", "seconds", "workers")
REWARDS = {
    "sspo_verl.reward.math": ("math", _COMMON),
    "sspo_verl.reward.reasoning_gym": ("gym", (*_COMMON, "partial")),
}


def module_of(path: object) -> str | None:
    """The module of ours that reward.custom_reward_function.path names, by module name or file; else None.

    Raises ValueError if it is neither text nor null.
    """
    if not path:
        return None
    if not isinstance(path, str):
        raise ValueError(f"{FUNCTION}.path={path!r} must be a file, or pkg:// and a module ({', '.join(REWARDS)}).")
    if path.startswith("pkg://"):
        name = path.removeprefix("pkg://").replace("/", ".")
        return name if name in REWARDS else None
    for name in REWARDS:
        if Path(path).resolve() == Path(__file__).with_name(f"{name.rpartition('.')[2]}.py").resolve():
            return name
    return None


def is_ours(path: object) -> bool:
    return module_of(path) is not None


def check(module: str, settings: object) -> None:
    """Check the settings of one of REWARDS.

    Raises ValueError, naming the key, for an unknown or invalid setting, and MissingExtra if a package that the reward
    needs is not installed.
    """
    extra, names = REWARDS[module]
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"{KEY}={settings!r} must be a mapping with keys of {', '.join(names)}. For instance {KEY}.seconds=5."
        )
    if unknown := [str(name) for name in settings if name not in names]:
        raise ValueError(f"{KEY}.{unknown[0]}: {module} has no such setting. It has {', '.join(names)}.")
    for name in ("seconds", "workers"):
        if isinstance(settings.get(name), bool):
            raise ValueError(f"{KEY}.{name}={settings[name]} must be a number.")
    require(extra, module)
    from sspo_verl.reward.judge import Judge
    from sspo_verl.reward.task_judge import TaskJudge

    judge = TaskJudge if extra == "gym" else Judge
    try:
        judge(**settings)  # starts nothing before the first check
    except ValueError as error:
        raise ValueError(f"{KEY}.{error}") from error

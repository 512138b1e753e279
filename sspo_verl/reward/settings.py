"""Checks reward.custom_reward_function.reward_kwargs before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sspo_verl.extras import require

KEY = "reward.custom_reward_function.reward_kwargs"
# Our reward functions: the module, the extra it needs, and its settings.
_COMMON = ("answer", "seconds", "workers")
REWARDS = {
    "sspo_verl.reward.math": ("math", _COMMON),
    "sspo_verl.reward.reasoning_gym": ("gym", (*_COMMON, "partial")),
}


def module_of(path: str | None) -> str | None:
    """The module of ours that reward.custom_reward_function.path names, by module name or file; else None."""
    if not path:
        return None
    if path.startswith("pkg://"):
        name = path.removeprefix("pkg://").replace("/", ".")
        return name if name in REWARDS else None
    for name in REWARDS:
        if Path(path).resolve() == Path(__file__).with_name(f"{name.rpartition('.')[2]}.py").resolve():
            return name
    return None


def is_ours(path: str | None) -> bool:
    return module_of(path) is not None


def check(module: str, settings: Mapping) -> None:
    """Check the settings of one of REWARDS.

    Raises ValueError, naming the key, for an unknown or invalid setting, and MissingExtra if a package that the reward
    needs is not installed.
    """
    extra, names = REWARDS[module]
    if unknown := [str(name) for name in settings if name not in names]:
        raise ValueError(f"{KEY}.{unknown[0]}: {module} has no such setting. It has {', '.join(names)}.")
    require(extra, module)
    from sspo_verl.reward.judge import Judge
    from sspo_verl.reward.task_judge import TaskJudge

    judge = TaskJudge if extra == "gym" else Judge
    try:
        judge(**settings)  # starts nothing before the first check
    except ValueError as error:
        raise ValueError(f"{KEY}.{error}") from error

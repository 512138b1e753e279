"""Checks the names that verl looks up only once Ray runs; a misspelt one would also switch off checks that need it.

verl and its users may register names of their own, so where that is possible only a likely misspelling is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sspo_verl.plugin.checkpoints import KINDS, contents_of
from sspo_verl.plugin.run_settings import ACTOR, CORRECTION, FSDP, ROLLOUT, Run
from sspo_verl.plugin.try_reward import AGENT_LOOPS

# verl's own names. Users can register others.
OPEN = {
    "trainer.v1.trainer_mode": ("sync", "colocate_async", "separate_async"),
    f"{ACTOR}.strategy": ("fsdp", "fsdp2", "fsdp_turbo", "megatron", "veomni", "torchtitan", "automodel"),
    f"{ROLLOUT}.name": ("vllm", "sglang", "trtllm"),
    f"{ROLLOUT}.agent.default_agent_loop": AGENT_LOOPS,
    "reward.reward_manager.name": ("naive", "dapo", "gdpo", "remote"),
}
RESUME_MODES = ("auto", "disable", "resume_path")
IS_LEVELS = ("token", "sequence")
CONTENTS = (*KINDS, "hf_model")


def names_are_known(run: Run) -> str | None:
    """Error about the first name that verl would not find, or None."""
    from omegaconf import OmegaConf

    for key, known in OPEN.items():
        value = OmegaConf.select(run.config, key)
        if value is None:  # an engine or trainer without this key
            continue
        if not isinstance(value, str):
            return f"{key} must be a name, got {value!r}. Choose one of {', '.join(known)}."
        if meant := misspelt(value, known):
            return f"{key}={value}: verl has no such name. Did you mean {meant}?"
    mode = run.config.trainer.get("resume_mode", "auto")
    if mode not in RESUME_MODES:
        return f"trainer.resume_mode={mode} is unknown. Choose one of {', '.join(RESUME_MODES)}."
    return None


def misspelt(value: str, known: Iterable[str]) -> str | None:
    """The known name that `value` is a likely misspelling of, or None. Not a name that extends one (naive_v2)."""
    names = list(known)
    if value in names:
        return None
    letters = sorted(value.lower())
    if swapped := next((name for name in names if sorted(name) == letters), None):
        return swapped
    near = difflib.get_close_matches(value.lower(), names, 1, 0.85)
    return near[0] if near and near[0] not in value else None


def correction_is_known(run: Run) -> str | None:
    """Error if verl would refuse the rollout correction at the first batch, or None."""
    from verl.trainer.ppo.rollout_corr_helper import SUPPORTED_ROLLOUT_RS_OPTIONS

    level, criteria = run.correction.get("rollout_is"), run.correction.get("rollout_rs")
    if level is not None and level not in IS_LEVELS:
        return f"{CORRECTION}.rollout_is={level} is unknown. Choose one of {', '.join(IS_LEVELS)}, or null for none."
    if criteria is None:
        return None
    known = sorted(SUPPORTED_ROLLOUT_RS_OPTIONS)
    asked = [each.strip() for each in criteria.split(",") if each.strip()] if isinstance(criteria, str) else []
    if not asked or any(each not in known for each in asked):
        ways = f"Choose one or several (with commas) of {', '.join(known)}, or null for none."
        return f"{CORRECTION}.rollout_rs={criteria} is unknown. {ways}"
    if run.correction.get("rollout_rs_threshold") is None:
        return f"{CORRECTION}.rollout_rs={criteria} needs {CORRECTION}.rollout_rs_threshold."
    return None


def checkpoints_can_be_resumed(run: Run) -> str | None:
    """Error if what a checkpoint contains is misspelt, or is less than a resume loads, or None."""
    checkpoint, trainer = run.actor.get("checkpoint"), run.config.trainer
    if run.trainer != "main_ppo" or checkpoint is None or run.actor.strategy not in FSDP:
        return None
    for name in ("save_contents", "load_contents"):
        value = checkpoint.get(name)
        key = f"{ACTOR}.checkpoint.{name}"
        if value is not None and (isinstance(value, str) or not isinstance(value, Iterable)):
            return f"{key} must be a list of {', '.join(CONTENTS)}, got {value!r}."
        if unknown := [each for each in value or () if each not in CONTENTS]:
            return f"{key} has {unknown[0]!r}, which verl would ignore. Choose from {', '.join(CONTENTS)}."
    saved, loaded = contents_of(checkpoint, "save_contents"), contents_of(checkpoint, "load_contents")
    lacking = [each for each in loaded if each in KINDS and each not in saved]
    if lacking and trainer.save_freq > 0 and trainer.resume_mode != "disable":
        return (
            f"{ACTOR}.checkpoint.load_contents has {', '.join(lacking)}, which save_contents leaves out: a run could "
            "not be resumed from its checkpoints. Add it to save_contents, or remove it from load_contents."
        )
    return None

"""Settings of runs, as used by the report: the algorithm, the planned steps, and differences that matter."""

from __future__ import annotations

import json

from sspo_verl.names import KEY
from sspo_verl.tools.runs.recipe import algorithm_settings, algorithms
from sspo_verl.tools.runs.settings import Settings

AGGREGATION = "actor_rollout_ref.actor.loss_agg_mode"
ADVANTAGE = "algorithm.adv_estimator"

# Runs of one algorithm may differ in everything else (folders, seeds, machines) and still be seeds of each other.
_COMPARED = (
    KEY,
    "algorithm",
    "actor_rollout_ref.actor.optim",
    AGGREGATION,
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.actor.clip_ratio",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "data.train_batch_size",
    "data.max_response_length",
)
# Settings that only observe the training.
_OBSERVING = ("diagnostics", "dump_segments", "warn_")


# Of the settings that `algorithm=` sets, those that make it a different algorithm if changed.
_OF_SSPO = (KEY,)
_OF_VERLS = ("actor_rollout_ref.actor.clip_ratio_low", "actor_rollout_ref.actor.clip_ratio_high")


def algorithm(settings: Settings) -> str | None:
    """The run's label (the name given to `algorithm=`), and the settings in which the run differs from it:
    "sspo (clip_low=0.3)". For a run without a label, a name from its loss; None if its settings do not say."""
    label = settings.get(f"{KEY}.label")
    name = label if isinstance(label, str) and label in algorithms() else _by_loss(settings)
    if name is None or name not in algorithms():
        return name
    return _with_remarks(name, _changes(name, settings))


def _changes(name: str, settings: Settings) -> list[str]:
    asked = algorithm_settings(name)
    looked_at = _OF_SSPO if asked[f"{KEY}.loss_mode"] == "sspo" else _OF_VERLS
    aside = tuple(f"{KEY}.{each}" for each in ("label", "_target_", *_OBSERVING))
    found = [
        f"{key.rpartition('.')[2]}={settings[key]}"
        for key, value in asked.items()
        if key.startswith(looked_at) and not key.startswith(aside) and settings.get(key, value) != value
    ]
    advantage = settings.get(ADVANTAGE)
    return [f"advantage: {advantage}"] * (advantage not in (None, asked[ADVANTAGE])) + found


def _with_remarks(name: str, remarks: list[str]) -> str:
    return f"{name} ({', '.join(remarks)})" if remarks else name


def _by_loss(settings: Settings) -> str | None:
    loss, advantage = settings.get(f"{KEY}.loss_mode"), settings.get(ADVANTAGE)
    if not isinstance(loss, str) or "${" in loss:
        return None
    if loss == "vanilla":  # PPO's loss: the name depends on the advantage
        return advantage if isinstance(advantage, str) and "${" not in advantage else loss
    if loss == "sspo" and settings.get(f"{KEY}.entropy_clip") is False:
        loss = "sspo_no_entropy_clip"
    if loss in algorithms():
        return loss
    return loss if advantage in (None, "grpo") else f"{loss} (advantage: {advantage})"


def differences(runs: list[Settings]) -> list[str]:
    """The keys in which runs of one algorithm differ although seeds of each other must not."""
    known = [settings for settings in runs if settings]
    keys = sorted({key for settings in known for key in settings if _compared(key)})
    return [key for key in keys if len({json.dumps(settings.get(key), default=str) for settings in known}) > 1]


def _compared(key: str) -> bool:
    if key.startswith(tuple(f"{KEY}.{name}" for name in _OBSERVING)):
        return False
    return any(key == top or key.startswith(f"{top}.") for top in _COMPARED)


def aggregation(settings: Settings) -> str | None:
    """actor.loss_agg_mode; None if the settings do not have it."""
    mode = settings.get(AGGREGATION)
    return mode if isinstance(mode, str) and "${" not in mode else None


def planned_steps(settings: Settings) -> int | None:
    steps = settings.get("trainer.total_training_steps")
    return steps if isinstance(steps, int) and steps > 0 else None

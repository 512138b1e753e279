"""Checks that verl's count settings are integers of 1 or more; else verl fails with a traceback, or never updates.

`counts_are_integers` runs before the other rules of `check_run`, which compute with these settings.
"""

from __future__ import annotations

from sspo_verl.plugin.run_settings import ACTOR, ROLLOUT, Run

# For verl's V1 trainer only: fully_async, for example, requires data.train_batch_size=0.
COUNTS = (
    f"{ROLLOUT}.n",
    "data.train_batch_size",
    f"{ACTOR}.ppo_mini_batch_size",
    f"{ACTOR}.ppo_epochs",
    f"{ACTOR}.ulysses_sequence_parallel_size",
    "trainer.n_gpus_per_node",
    "trainer.nnodes",
)


def counts_are_integers(run: Run) -> str | None:
    """Error about the first setting that is not, or None. A key that an engine does not have is skipped."""
    from omegaconf import OmegaConf

    if run.trainer != "main_ppo":
        return None
    missing = object()
    for key in COUNTS:
        value = OmegaConf.select(run.config, key, default=missing)
        if value is missing or is_count(value):
            continue
        return f"{key} must be an integer of 1 or more, got {value!r}."
    return None


def is_count(value) -> bool:
    return is_integer(value) and value >= 1


def is_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_integer_or_null(key: str, value) -> None:
    """Raise ValueError, naming the key, if the value is neither."""
    if value is not None and not is_integer(value):
        raise ValueError(f"{key} must be an integer or null, got {value!r}.")

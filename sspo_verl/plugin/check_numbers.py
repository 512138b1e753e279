"""Checks the types and ranges of verl's numbers and switches; else verl fails with a traceback, or never updates.

Runs before the other rules of `check_run`, which compute with these settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sspo_verl.band_settings import is_finite
from sspo_verl.plugin.run_settings import ACTOR, CORRECTION, ROLLOUT, Run

REF = "actor_rollout_ref.ref"


def is_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value) -> bool:
    return is_integer(value) and value >= 1


class Kind(NamedTuple):
    """What a setting must be, in words, and the test for it."""

    words: str
    allows: Callable[[Any], bool]

    def or_null(self) -> Kind:
        return Kind(f"{self.words}, or null", lambda value: value is None or self.allows(value))


COUNT = Kind("an integer of 1 or more", is_count)
INTEGER = Kind("an integer", is_integer)
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
RATE = Kind("a finite number of 0 or more", lambda value: is_finite(value) and value >= 0)
# For verl's V1 trainer only: fully_async, for example, requires data.train_batch_size=0.
KINDS = {
    f"{ROLLOUT}.n": COUNT,
    "data.train_batch_size": COUNT,
    f"{ACTOR}.ppo_mini_batch_size": COUNT,
    f"{ACTOR}.ppo_epochs": COUNT,
    f"{ACTOR}.ulysses_sequence_parallel_size": COUNT,
    "trainer.n_gpus_per_node": COUNT,
    "trainer.nnodes": COUNT,
    "data.max_response_length": COUNT,
    "trainer.total_epochs": COUNT,
    "trainer.total_training_steps": COUNT.or_null(),
    "trainer.save_freq": INTEGER,
    "trainer.test_freq": INTEGER,
    "trainer.max_actor_ckpt_to_keep": INTEGER.or_null(),
    f"{ACTOR}.optim.lr": RATE,
    f"{ROLLOUT}.temperature": RATE,
    f"{ACTOR}.use_dynamic_bsz": SWITCH,
    f"{ACTOR}.ppo_max_token_len_per_gpu": COUNT,
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": COUNT.or_null(),
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": COUNT.or_null(),
    f"{REF}.log_prob_micro_batch_size_per_gpu": COUNT.or_null(),
    f"{REF}.log_prob_use_dynamic_bsz": SWITCH,
    f"{CORRECTION}.bypass_mode": SWITCH,
}
NOT_WITH_VAL_ONLY = ("trainer.total_epochs", "trainer.total_training_steps")


def numbers_are_valid(run: Run) -> str | None:
    """Error about the first setting that is not, or None. A key that an engine does not have is skipped."""
    from omegaconf import OmegaConf

    if run.trainer != "main_ppo":
        return None
    missing = object()
    for key, kind in KINDS.items():
        value = OmegaConf.select(run.config, key, default=missing)
        if value is missing or kind.allows(value) or (run.config.trainer.get("val_only") and key in NOT_WITH_VAL_ONLY):
            continue
        return f"{key} must be {kind.words}, got {value!r}."
    return None

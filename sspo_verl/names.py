"""Shared names: of the method in verl's registries, of its settings, and the advice how to choose it."""

NAME = "sspo"
KEY = "actor_rollout_ref.actor.policy_loss"  # where its settings are
USE_ALGORITHM = (
    f"Start with algorithm=sspo (or algorithm=sspo_no_entropy_clip), which sets {KEY}._target_ and loss_mode together."
)

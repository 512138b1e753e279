"""Shared names: the method's name in verl's registries, the key of its settings, and how to select it."""

NAME = "sspo"
KEY = "actor_rollout_ref.actor.policy_loss"  # where its settings are
USE_ALGORITHM = (
    f"Start with algorithm=sspo (or algorithm=sspo_no_entropy_clip), which sets {KEY}._target_ and loss_mode together."
)

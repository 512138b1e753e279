"""`Run`: a composed configuration, as read by the checks and notes of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sspo_verl.names import KEY, NAME

ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
CORRECTION = "algorithm.rollout_correction"
FSDP = ("fsdp", "fsdp2")  # values of actor.strategy whose sizes and checkpoints are checked
# What each label (set in conf/algorithm/*.yaml) stands for in `actor.policy_loss`; a test checks that they agree.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "sspo": {"loss_mode": NAME},
    "sspo_no_entropy_clip": {"loss_mode": NAME, "entropy_clip": False},
    "sspo_length": {"loss_mode": NAME, "clip_length_exponent": -0.5},
    "sspo_turn": {"loss_mode": NAME, "segmenter": "turn"},
    "grpo": {"loss_mode": "vanilla"},
    "gspo": {"loss_mode": "gspo"},
    "gspo_wide": {"loss_mode": "gspo"},
}


def run_of(config) -> Run | None:
    """The run of a composed configuration; None if it uses nothing of SSPO. Raises ValueError for a bad SSPO setting,
    naming the key."""
    from omegaconf import OmegaConf

    policy_loss = OmegaConf.select(config, KEY)
    settings = None
    if policy_loss is not None:
        from sspo_verl.config import settings_of

        settings = settings_of(policy_loss)
        if settings is not None or policy_loss.get("loss_mode") == NAME or policy_loss.get("label") is not None:
            return Run(config, settings)
    return Run(config, settings) if OmegaConf.select(config, "algorithm.adv_estimator") == NAME else None


@dataclass
class Run:
    """A run that uses SSPO, its advantage, or its config class."""

    config: Any  # the complete DictConfig
    settings: Any  # SSPOPolicyLossConfig; None if actor.policy_loss is verl's class

    @cached_property
    def actor(self):
        return self.config.actor_rollout_ref.actor

    @cached_property
    def policy_loss(self):
        """`actor.policy_loss`; empty if there is none, and verl then uses its own class."""
        return self.actor.get("policy_loss") or {}

    @property
    def loss(self) -> str:
        return self.policy_loss.get("loss_mode", "vanilla")

    @property
    def advantage(self) -> str | None:
        return self.config.algorithm.get("adv_estimator")

    @property
    def sspo(self) -> bool:
        """Whether SSPO's loss is trained."""
        return self.settings is not None and self.loss == NAME

    @property
    def observes(self) -> bool:
        """Whether SSPO's loss is trained or its diagnostics are on: both cut responses into segments."""
        return self.sspo or (self.settings is not None and self.settings.diagnostics)

    @property
    def needs_entropy(self) -> bool:
        return self.observes and self.settings.uses_entropy

    @property
    def cuts_at_entropy(self) -> bool:
        """Whether the segmenter needs the old policy's entropy."""
        from sspo_verl.segmenters import factory_of

        return self.observes and factory_of(self.settings.segmenter).needs_entropy

    @property
    def what(self) -> str:
        return "SSPO" if self.sspo else "the diagnostics"

    @property
    def otherwise(self) -> str:
        """The alternative fix for a run with another loss."""
        return "" if self.sspo else f", or {KEY}.diagnostics=False"

    @property
    def n(self) -> int:
        return self.config.actor_rollout_ref.rollout.n

    @cached_property
    def own_groups(self) -> list[str]:
        """Keys with which user code may create groups of other sizes than `rollout.n`: an agent loop manager that
        writes several sessions per prompt, or a dataset whose rows contain `__rollout_n__`."""
        from omegaconf import OmegaConf

        keys = (f"{ROLLOUT}.agent.agent_loop_manager_class", "data.custom_cls.path")
        return [key for key in keys if OmegaConf.select(self.config, key)]

    @property
    def responses(self) -> int | None:
        """Number of responses that a step trains on; None if user code creates the groups."""
        return None if self.own_groups else self.config.data.train_batch_size * self.n

    @cached_property
    def correction(self):
        return self.config.algorithm.get("rollout_correction") or {}

    @property
    def bypass(self) -> bool:
        """Whether old_log_prob is the sampler's log-prob."""
        return bool(self.correction.get("bypass_mode"))

    @cached_property
    def trainer(self) -> str:
        """Which of verl's entry points is running. The last two have use_v1=True in their configs but are not V1."""
        from omegaconf import OmegaConf

        if OmegaConf.select(self.config, "async_training.trigger_parameter_sync_step") is not None:
            return "fully_async"
        return "one_step_off" if OmegaConf.select(self.config, "rollout.n_gpus_per_node") is not None else "main_ppo"

    @property
    def updates(self) -> int:
        """Number of actor updates that share the policy of old_log_prob: with a single one, every ratio is 1."""
        config = self.config
        if self.trainer == "fully_async":
            asynchronous = config.async_training
            batches = asynchronous.require_batches * asynchronous.trigger_parameter_sync_step
        else:
            batches = math.ceil(config.data.train_batch_size / self.actor.ppo_mini_batch_size)
        return batches * self.actor.ppo_epochs

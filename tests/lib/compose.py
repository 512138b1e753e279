"""Compose verl's trainer config as `python -m verl.trainer.main_ppo` does."""

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

# What verl's validate_config asks of every run, and SSPO's: groups of several responses.
RUNNABLE = (
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
    "critic.ppo_micro_batch_size_per_gpu=4",
)


def trainer_config(*overrides: str, name: str = "ppo_trainer") -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, overrides=list(overrides))

"""Settings of a recipe, algorithms side by side: python scripts/recipe_settings.py [RECIPE [KEY=VALUE ...]]

Prints a table in Markdown, composed like in main_ppo: first the keys in which the algorithms differ, then those that
all of them share and that differ from verl's ppo_trainer. docs/reproduce.md has the table of qwen2_5_math_1_5b, and a
test checks it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from sspo_verl.band_settings import BY_NAME
from sspo_verl.tools.runs.recipe import composed
from sspo_verl.tools.runs.settings import Settings, flatten

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
ALGORITHMS = ("sspo", "sspo_no_entropy_clip", "grpo", "gspo")
POLICY_LOSS = "actor_rollout_ref.actor.policy_loss"
# SSPO's own: with another loss they only affect the diagnostics, and without the entropy clip some have no effect.
PLAIN_BAND = tuple(f"{POLICY_LOSS}.{name}" for name in ("clip_low", "clip_high", "dual_clip"))
ENTROPY_CLIP = tuple(
    f"{POLICY_LOSS}.{name}" for name in ("clip_low_tight", "alpha", "entropy_low", "entropy_high", "entropy_source")
)
# verl's, for its own losses: SSPO has its own bounds.
VERL_BOUNDS = tuple(f"actor_rollout_ref.actor.{name}" for name in ("clip_ratio_low", "clip_ratio_high", "clip_ratio_c"))
# verl's defaults on which a comparison depends.
ALSO = (
    *(f"actor_rollout_ref.actor.{name}" for name in ("ppo_epochs", "use_kl_loss", "entropy_coeff", "grad_clip")),
    *(f"actor_rollout_ref.actor.optim.{name}" for name in ("lr", "lr_scheduler_type", "weight_decay")),
    *(f"actor_rollout_ref.rollout.{name}" for name in ("temperature", "top_p", "val_kwargs.temperature")),
    "algorithm.norm_adv_by_std_in_grpo",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
)
# Left out of the table: helpers of the run's name, logging, and keys that follow from another key.
LEFT_OUT = (
    *("run_names.", "trainer.project_name", "trainer.logger", "trainer.validation_data_dir", "ray_kwargs."),
    *(f"{POLICY_LOSS}.{name}" for name in ("_target_", "warn_", "dump_segments", "entropy_thresholds", *BY_NAME)),
    *("critic.", "distillation.", "actor_rollout_ref.ref.", "actor_rollout_ref.actor.rollout_n"),
    *(f"actor_rollout_ref.rollout.{name}" for name in ("trace.", "prometheus.", "prompt_length", "response_length")),
    *("actor_rollout_ref.rollout.log_prob_", "actor_rollout_ref.actor.clip_ratio"),
)


def flat(config: DictConfig) -> Settings:
    """{"a.b": value}, resolved; lists are values."""
    return flatten(OmegaConf.to_container(config, resolve=True))


def settings(recipe: str, *overrides: str) -> Settings:
    return flat(composed(RECIPES, recipe, overrides))


def verls_own() -> Settings:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return flat(compose("ppo_trainer"))


def shown(key: str, value: object, algorithm: str) -> str:
    """A table cell. A dash marks a setting that has no effect with this algorithm."""
    sspo = algorithm.startswith("sspo")
    idle = key in VERL_BOUNDS if sspo else key in (*PLAIN_BAND, *ENTROPY_CLIP) or key == f"{POLICY_LOSS}.entropy_clip"
    dual_clip = algorithm == "gspo" and key.endswith("clip_ratio_c")  # only used by GRPO
    if idle or dual_clip or (algorithm == "sspo_no_entropy_clip" and key in ENTROPY_CLIP):
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(recipe: str, *overrides: str) -> str:
    each_algorithm = {name: settings(recipe, f"algorithm={name}", *overrides) for name in ALGORITHMS}
    stock = verls_own()
    differing, shared = [], []
    for key, value in each_algorithm["sspo"].items():
        cells = [shown(key, each[key], name) for name, each in each_algorithm.items()]
        if key in VERL_BOUNDS or (len(set(cells)) > 1 and not key.startswith(LEFT_OUT)):
            differing.append(f"| `{key}` | " + " | ".join(cells) + " |")
        elif key in ALSO or ((key not in stock or stock[key] != value) and not key.startswith(LEFT_OUT)):
            shared.append(f"| `{key}` | {cells[0]} |")
    header = ["| key | " + " | ".join(ALGORITHMS) + " |", "|---" * (1 + len(ALGORITHMS)) + "|"]
    return "\n".join([*header, *differing, "", "| key | all four |", "|---|---|", *shared])


if __name__ == "__main__":
    recipe, *overrides = sys.argv[1:] or ["qwen2_5_math_1_5b"]
    print(table(recipe, *overrides))

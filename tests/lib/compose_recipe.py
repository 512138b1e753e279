"""In a process of its own: `python compose_recipe.py FOLDER RECIPE`, a recipe with every algorithm, as JSON.

Each is composed on one node and on two, passed through verl's own validate_config as main_ppo does it, and printed as
{algorithm: {"nodes": {"1": error or null, "2": ...}, "settings": {"a.b": value}}}, resolved.
"""

import contextlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from omegaconf import DictConfig
from recipe_settings import flat, verls_own
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from sspo_verl.tools.runs.recipe import algorithms, composed


def complaint(config: DictConfig) -> str | None:
    """verl's error about it."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            validate_config(config, need_reference_policy(config), need_critic(config))
            omega_conf_to_dataclass(config.actor_rollout_ref.rollout)  # closed, and built by the workers only
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main(folder: str, recipe: str) -> None:
    found: dict = {"verl": verls_own()}
    for algorithm in algorithms():
        configs = {n: composed(Path(folder), recipe, [f"algorithm={algorithm}", f"trainer.nnodes={n}"]) for n in (1, 2)}
        complaints = {n: complaint(config) for n, config in configs.items()}
        found[algorithm] = {"complaints": complaints, "settings": flat(configs[1])}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

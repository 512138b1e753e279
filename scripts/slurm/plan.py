"""Checks what train.sbatch was asked for, without verl or Ray, and prints what it needs as lines of shell."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig

from sspo_verl.compose import composed
from sspo_verl.fresh_process import CPU_ENVIRONMENT
from sspo_verl.quickstart.run_dir import RunDir

RECIPES = Path("recipes")
# Ray is there already when verl comes, and ray.init refuses these then, whatever a recipe says. A null is taken.
NOT_WITH_AN_ADDRESS = ("num_cpus", "num_gpus", "object_store_memory", "_temp_dir")


def recipe_names() -> list[str]:
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def choose_recipe(arguments: list[str]) -> tuple[str, list[str]]:
    """(recipe, overrides). Raises ValueError."""
    names = ", ".join(recipe_names())
    if not arguments or "=" in arguments[0]:
        raise ValueError(f"name a recipe first, one of: {names}. For instance: scripts/slurm/train.sbatch quickstart")
    recipe, *overrides = arguments
    if recipe not in recipe_names():
        raise ValueError(f"there is no recipe {recipe} (recipes/{recipe}.yaml). There are: {names}")
    for override in overrides:
        if override.startswith("-") or ("=" not in override and not override.startswith("~")):
            raise ValueError(
                f"{override!r} is no Hydra override (key=value); options of sbatch stand before the script"
            )
    return recipe, overrides


def gpus_of_a_node() -> int:
    """How many Slurm gave on this node, which is the job's first."""
    counted = os.environ.get("SLURM_GPUS_ON_NODE", "")
    listed = os.environ.get("SLURM_JOB_GPUS", "")
    return int(counted) if counted.isdecimal() else len(list(filter(None, listed.split(","))))


def own_overrides(on_cpu: bool) -> list[str]:
    """What the allocation decides. They stand before the user's, who may want less than there is."""
    overrides = ["trainer.resume_mode=auto"]
    if "SLURM_JOB_NUM_NODES" in os.environ:
        overrides.append(f"trainer.nnodes={os.environ['SLURM_JOB_NUM_NODES']}")
        if not on_cpu:
            overrides.append(f"trainer.n_gpus_per_node={gpus_of_a_node()}")
    return overrides


def check_allocation(trainer: DictConfig, on_cpu: bool) -> None:
    """Raises ValueError where the configuration wants more than Slurm gave: verl would say so late."""
    nodes, gpus = int(os.environ["SLURM_JOB_NUM_NODES"]), gpus_of_a_node()
    if not on_cpu and gpus == 0:
        raise ValueError("the job has no GPUs: sbatch --gpus-per-node=8 (or --gres=gpu:8, as the site has it)")
    if trainer.nnodes > nodes:
        raise ValueError(f"trainer.nnodes={trainer.nnodes}, but the job has {nodes} node(s): sbatch --nodes=...")
    if not on_cpu and trainer.n_gpus_per_node > gpus:
        raise ValueError(f"trainer.n_gpus_per_node={trainer.n_gpus_per_node}, but the job has {gpus} GPUs on a node")


def run_folder(checkpoints: Path) -> Path:
    """A recipe's checkpoints are in the folder `checkpoints` of its run."""
    return (checkpoints.parent if checkpoints.name == "checkpoints" else checkpoints).resolve()


def plan(arguments: list[str]) -> list[str]:
    """Lines of shell. Raises ValueError."""
    recipe, overrides = choose_recipe(arguments)
    on_cpu = composed(RECIPES, recipe, overrides).trainer.device == "cpu"
    before = own_overrides(on_cpu)
    trainer = composed(RECIPES, recipe, [*before, *overrides]).trainer
    run = run_folder(Path(trainer.default_local_dir))
    variables = {
        "recipe": recipe,
        "platform": "cpu" if on_cpu else "gpu",
        "run_folder": str(run),
        # verl's workers ask Ray for a GPU each: without any, Ray is told that there are so many.
        "slots": str(trainer.n_gpus_per_node) if on_cpu else "",
    }
    if "SLURM_JOB_ID" in os.environ:
        check_allocation(trainer, on_cpu)
        if trainer.save_freq <= 0:
            note = f"trainer.save_freq={trainer.save_freq}: there will be no checkpoint to go on from"
            print(f"train.sbatch: {note}", file=sys.stderr)
        variables["attempt"] = str(RunDir(run).new_attempt())
    after = [f"++ray_kwargs.ray_init.{name}=null" for name in NOT_WITH_AN_ADDRESS]
    return [
        *(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
        f"before=({shlex.join(before)})",
        f"after=({shlex.join(after)})",
        *(f"export {name}={shlex.quote(value)}" for name, value in (CPU_ENVIRONMENT if on_cpu else {}).items()),
    ]


def main() -> int:
    try:
        print("\n".join(plan(sys.argv[1:])))
    except ValueError as error:
        print(f"train.sbatch: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Checks the arguments of train.sbatch, without verl or Ray, and prints what it needs as lines of shell."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import allocation
from omegaconf import DictConfig

from sspo_verl.plugin import check_data, check_run
from sspo_verl.plugin.check_resume import check_ranks, folder_of
from sspo_verl.plugin.checkpoints import contents_of
from sspo_verl.tools.runs.environment import CPU_ENVIRONMENT
from sspo_verl.tools.runs.recipe import composed

RECIPES = Path("recipes")
# Ray is already running when verl starts, and ray.init then refuses these, whatever a recipe says. null is accepted.
NOT_WITH_AN_ADDRESS = ("num_cpus", "num_gpus", "object_store_memory", "_temp_dir")


def recipe_names() -> list[str]:
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def recipe_of(asked: str) -> str | None:
    """The recipe's name, of NAME, NAME.yaml or the path recipes/NAME.yaml; None if there is no such recipe."""
    path = Path(asked)
    name = path.name.removesuffix(".yaml")
    in_recipes = path.parent == Path() or path.parent.resolve() == RECIPES.resolve()
    return name if in_recipes and name in recipe_names() else None


def choose_recipe(arguments: list[str]) -> tuple[str, list[str]]:
    """(recipe, overrides). Raises ValueError."""
    names = ", ".join(recipe_names())
    if not arguments or "=" in arguments[0]:
        raise ValueError(f"name a recipe first, one of: {names}. For instance: scripts/slurm/train.sbatch quickstart")
    asked, *overrides = arguments
    recipe = recipe_of(asked)
    if recipe is None:
        raise ValueError(f"there is no recipe {asked} in {RECIPES}/. Choose one of {names}")
    for override in overrides:
        if override.startswith("-") or ("=" not in override and not override.startswith("~")):
            raise ValueError(
                f"{override!r} is not a Hydra override (key=value); options of sbatch go before the script"
            )
    return recipe, overrides


def of_the_task(overrides: list[str]) -> list[str]:
    """The overrides with $SLURM_... replaced: sbatch takes one command for all tasks of an array.

    Raises ValueError for a variable that is not set.
    """

    def value(match: re.Match) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ValueError(
                f"{match[0]} in {match.string!r} is not set here: only in a job, or an array (sbatch --array); where "
                f"text follows a name, write ${{{name}}}"
            )
        return os.environ[name]

    replaced = [re.sub(r"\$(?:(SLURM_\w+)|\{(SLURM_\w+)\})", value, override) for override in overrides]
    for override in replaced:
        if re.search(r"\$[({].*SLURM_", override):
            raise ValueError(
                f"{override!r}: of the shell's expressions only $SLURM_NAME and ${{SLURM_NAME}} are replaced in a job. "
                "Write one of these, or let the shell replace it before sbatch (double quotes)"
            )
    return replaced


def gpus_of_a_node() -> int:
    """Number of GPUs that Slurm allocated on this node, which is the job's first."""
    return allocation.gpus("SLURM_JOB_GPUS")


def own_overrides(on_cpu: bool) -> list[str]:
    """Overrides derived from the allocation. They come before the user's, who may want to use less."""
    overrides = ["trainer.resume_mode=auto"]
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        overrides.append(f"data.seed={os.environ['SLURM_ARRAY_TASK_ID']}")
    if "SLURM_JOB_NUM_NODES" in os.environ:
        overrides.append(f"trainer.nnodes={os.environ['SLURM_JOB_NUM_NODES']}")
        if not on_cpu:
            overrides.append(f"trainer.n_gpus_per_node={gpus_of_a_node()}")
    return overrides


def check_allocation(trainer: DictConfig, on_cpu: bool) -> None:
    """Raise ValueError if the configuration needs more than Slurm allocated, which verl would only report late."""
    nodes, gpus = int(os.environ["SLURM_JOB_NUM_NODES"]), gpus_of_a_node()
    if not on_cpu and gpus == 0:
        raise ValueError("the job has no GPUs: sbatch --gpus-per-node=8 (or --gres=gpu:8, as the site has it)")
    if trainer.nnodes > nodes:
        raise ValueError(f"trainer.nnodes={trainer.nnodes}, but the job has {nodes} node(s): sbatch --nodes=...")
    if not on_cpu and trainer.n_gpus_per_node > gpus:
        raise ValueError(f"trainer.n_gpus_per_node={trainer.n_gpus_per_node}, but the job has {gpus} GPUs per node")


def run_folder(checkpoints: Path) -> Path:
    """The run folder of a recipe's checkpoints, which are in its subfolder `checkpoints`."""
    return (checkpoints.parent if checkpoints.name == "checkpoints" else checkpoints).resolve()


class Asked(NamedTuple):
    """The command line. before: overrides that come before the user's."""

    recipe: str
    before: list[str]
    overrides: list[str]
    on_cpu: bool
    config: DictConfig


def ask(arguments: list[str]) -> Asked:
    """Raises ValueError."""
    if os.environ.get("SLURM_HET_SIZE", "") not in ("", "0", "1"):
        raise ValueError(
            "heterogeneous jobs (':' in the options of sbatch) are not supported: ask for nodes of one kind, with "
            "--constraint or a partition"
        )
    recipe, overrides = choose_recipe(arguments)
    overrides = of_the_task(overrides)
    on_cpu = composed(RECIPES, recipe, overrides).trainer.device == "cpu"
    before = own_overrides(on_cpu)
    config = composed(RECIPES, recipe, [*before, *overrides])
    if "SLURM_JOB_ID" in os.environ:
        check_allocation(config.trainer, on_cpu)
    return Asked(recipe, before, overrides, on_cpu, config)


def check(config: DictConfig) -> None:
    """Run the checks that verl's driver would run once Ray is up on all nodes: settings, data, reward. Raises
    ValueError."""
    check_run.check_run(config)
    check_run.check_reward(config)
    for line in check_data.check(config):
        print(f"train.sbatch: {line}", file=sys.stderr)


def plan(asked: Asked) -> list[str]:
    """Lines of shell."""
    config, trainer = asked.config, asked.config.trainer
    variables = {
        "recipe": asked.recipe,
        "platform": "cpu" if asked.on_cpu else "gpu",
        "run_folder": str(run_folder(folder_of(config))),
        # verl's workers each request a GPU from Ray: on CPUs, Ray is told that it has this many.
        "slots": str(trainer.n_gpus_per_node) if asked.on_cpu else "",
    }
    if "SLURM_JOB_ID" in os.environ and trainer.save_freq <= 0:
        note = f"trainer.save_freq={trainer.save_freq}: there will be no checkpoint to resume from"
        print(f"train.sbatch: {note}", file=sys.stderr)
    resume = []
    if "SLURM_JOB_ID" in os.environ:
        check_ranks(config)
    if trainer.resume_mode == "auto":
        contents = contents_of(config.actor_rollout_ref.actor.checkpoint)
        resume = [trainer.default_local_dir, trainer.total_training_steps, trainer.max_actor_ckpt_to_keep, *contents]
    after = [f"++ray_kwargs.ray_init.{name}=null" for name in NOT_WITH_AN_ADDRESS]
    return [
        *(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
        f"before=({shlex.join(asked.before)})",
        f"overrides=({shlex.join(asked.overrides)})",
        f"after=({shlex.join(after)})",
        f"resume=({shlex.join('' if word is None else str(word) for word in resume)})",
        *(f"export {name}={shlex.quote(value)}" for name, value in (CPU_ENVIRONMENT if asked.on_cpu else {}).items()),
    ]


def main() -> int:
    # train.sbatch executes stdout: it must not contain anything that a library or a reward function prints.
    shell = os.dup(1)
    os.dup2(2, 1)
    try:
        asked = ask(sys.argv[1:])
        check(asked.config)
        with open(shell, "w") as file:
            print("\n".join(plan(asked)), file=file)
    except ValueError as error:
        print(f"train.sbatch: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

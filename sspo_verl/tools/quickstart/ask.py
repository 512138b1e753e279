"""Step 1, ask: what a call asks for, and what remains to be done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sspo_verl.plugin import checkpoints
from sspo_verl.plugin.check_resume import check_ranks
from sspo_verl.plugin.check_run import check_reward, check_run
from sspo_verl.tools.quickstart.display import SETTINGS, Display, Status, shorten
from sspo_verl.tools.quickstart.forecast import Forecast
from sspo_verl.tools.quickstart.run import Plan, Run
from sspo_verl.tools.runs.main_ppo import MainPPO
from sspo_verl.tools.runs.platform import choose_platform
from sspo_verl.tools.runs.recipe import composed, find_recipes
from sspo_verl.tools.runs.settings import Settings, flatten, load

if TYPE_CHECKING:
    from omegaconf import DictConfig

RECIPE = "quickstart"
# Not part of a run: may differ between its attempts.
_VOLATILE = ("ray_kwargs.ray_init._temp_dir",)


@dataclass(frozen=True)
class Call:
    """The command line. stall_minutes: stop the run if verl's log shows no progress for this long."""

    algorithm: str
    overrides: tuple[str, ...]
    runs: Path
    fresh: bool = False
    stall_minutes: float = 10.0

    @property
    def run(self) -> Run:
        return Run(self.runs / self.algorithm)


@dataclass(frozen=True)
class Asked:
    """The work that a call asks for. keep_open: file descriptors that verl inherits with the folder's lock."""

    run: Run
    start: Path  # the folder of the starting model and the data
    main_ppo: MainPPO
    config: DictConfig
    settings: Settings
    plan: Plan
    forecast: Forecast
    stall_minutes: float
    fresh: bool = False  # `prepare` clears the run's folder
    keep_open: tuple[int, ...] = ()


def ask(call: Call, display: Display, keep_open: tuple[int, ...] = ()) -> Asked:
    """Compose the recipe, check settings and the run's folder, and return the work to do.

    Raises ValueError if Hydra does not accept the overrides, the run could not train as asked, or torch's accelerator
    is missing. Nothing on disk is changed in that case.
    """
    display.show(Status(SETTINGS, "reading the recipe"))
    start = call.runs / "start"
    job = main_ppo(call.run, start, call.algorithm, choose_platform(), call.overrides)
    config = composed(job.recipes, job.recipe, job.overrides, job.variables)
    check_run(config)
    check_reward(config)
    _check_folder(call, config)
    trainer = config.trainer
    plan = Plan("begin")
    if not call.fresh:
        contents = checkpoints.contents_of(config.actor_rollout_ref.actor.checkpoint)
        check_ranks(config)
        checkpoints.repair(call.run.checkpoints, contents, display.say)
        checkpoints.prune(call.run.checkpoints, trainer.max_actor_ckpt_to_keep, contents, display.say)
        plan = call.run.plan(trainer.total_training_steps, contents)
    forecast = Forecast(trainer.total_training_steps, trainer.test_freq, plan.step)
    asked = Asked(
        call.run, start, job, config, _flat(config), plan, forecast, call.stall_minutes, call.fresh, keep_open
    )
    _say(asked, display)
    return asked


def _check_folder(call: Call, config: DictConfig) -> None:
    """Raise ValueError for settings of the run's folder and length that the quickstart would not follow."""
    trainer = config.trainer
    for name, needed, way_out in (
        ("resume_mode", "auto", "--fresh starts over"),
        ("default_local_dir", str(call.run.checkpoints), "--runs sets the folder of all runs"),
    ):
        if trainer[name] != needed:
            raise ValueError(f"trainer.{name}={trainer[name]}: the quickstart needs {needed} ({way_out}).")
    if trainer.total_training_steps is None:
        raise ValueError("trainer.total_training_steps=null: the quickstart needs a number of steps.")


def main_ppo(run: Run, start: Path, algorithm: str, platform: str, overrides: tuple[str, ...] = ()) -> MainPPO:
    """verl on the quickstart's recipe. start: a folder created by start.make."""
    return MainPPO(
        recipes=find_recipes(RECIPE),
        recipe=RECIPE,
        overrides=(f"algorithm={algorithm}", f"platform={platform}", *overrides),
        platform=platform,
        variables={"SSPO_RUN_DIR": str(run.path), "SSPO_START_DIR": str(start), "SSPO_ALGORITHM": algorithm},
    )


def _flat(config: object) -> Settings:
    """The settings as they are in JSON, for comparison with those of an earlier call."""
    from omegaconf import OmegaConf

    settings = flatten(OmegaConf.to_container(config))  # pyright: ignore[reportArgumentType]
    kept = {key: value for key, value in settings.items() if key not in _VOLATILE}
    return json.loads(json.dumps(kept, default=str))


def changes(before: Settings, now: Settings) -> list[str]:
    """`key: old → new` for every setting that differs."""
    return [
        f"{key}: {before.get(key)} → {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _say(asked: Asked, display: Display) -> None:
    run, plan = asked.run, asked.plan
    changed = changes(load(run.settings), asked.settings) if run.settings.exists() else []
    if changed and plan.kind != "begin":
        what = "resumes with the new ones" if plan.kind == "resume" else "is finished and was not trained with them"
        display.say(f"Settings have changed since this run began; it {what}. --fresh starts over.")
        for line in changed:
            display.say(f"  {line}")
    if plan.kind == "finished":
        return
    where = f"{asked.main_ppo.platform.upper()}, {asked.forecast.total_steps} steps, in {shorten(run.path)}"
    display.say(f"{run.path.name} on the {where}")
    if plan.kind == "resume":
        display.say(f"Resuming from the checkpoint of step {plan.step}. (--fresh starts over.)")

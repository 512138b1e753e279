"""In a process of its own: `python hydra_applications.py FOLDER installed|hidden`, Hydra applications run one by one.

FOLDER is filled with configs of all kinds, with and without verl. Each command line runs in this process, through
hydra.main, with this package's Hydra plugin installed or hidden from Hydra. Printed is
{name: {"code": exit code, "out": stdout, "error": stderr}}, as JSON; those in ASKED only with the plugin installed.
"""

import contextlib
import io
import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

VERL = Path(find_spec("verl").submodule_search_locations[0]) / "trainer" / "config"
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
ON_VERL = "hydra: {searchpath: [pkg://verl.trainer.config]}\n"
OWN_GRPO = "# @package _global_\nalgorithm: {adv_estimator: grpo, gamma: 0.7}\n"
OWN_DAPO = "# @package _global_\nalgorithm: {adv_estimator: grpo, gamma: 0.6}\n"
FILES = {
    # Recipes of a user, on verl by the search path.
    "recipe/run.yaml": ON_VERL + "defaults: [ppo_trainer, _self_]\ntrainer: {total_epochs: 77}\n",
    "recipe/chosen.yaml": ON_VERL + "defaults: [ppo_trainer, override algorithm: grpo, _self_]\n",
    "linked/run.yaml": "hydra: {searchpath: ['file://link/']}\ndefaults: [ppo_trainer, _self_]\n",
    "entry/run.yaml": ON_VERL + "defaults:\n  - ppo_trainer\n  - algorithm: sspo\n  - _self_\n",
    # A file named as verl's, in a folder of the user.
    "named/ppo_trainer.yaml": ON_VERL + "defaults: [model@model: hf_model, _self_]\nmodel: {path: mine}\n",
    "mine/ppo_trainer.yaml": "defaults: [model@model: hf_model, _self_]\nmodel: {path: mine}\n",
    "found/run.yaml": "hydra: {searchpath: ['file://mine', pkg://verl.trainer.config]}\ndefaults: [ppo_trainer]\n",
    # A group of the user.
    "group/algorithm/grpo.yaml": OWN_GRPO,
    "group/algorithm/dapo.yaml": OWN_DAPO,
    "grouped/algorithm/grpo.yaml": OWN_GRPO,
    "grouped/algorithm/dapo.yaml": OWN_DAPO,
    "grouped/run.yaml": ON_VERL + "defaults: [ppo_trainer, algorithm: dapo, _self_]\n",
    "nested/algorithm/grpo.yaml": OWN_GRPO,
    "nested/algorithm/dapo.yaml": OWN_DAPO,
    "nested/base/all.yaml": "# @package _global_\ndefaults:\n- /ppo_trainer\n- /algorithm: dapo\n",
    "nested/run.yaml": ON_VERL + "defaults:\n- base: all\n- _self_\n",
    "correction/algorithm/rollout_correction.yaml": "bypass_mode: true\n",
    # Applications without verl.
    "plain/config.yaml": "algorithm: ppo\nlr: 1\n",
    "models/config.yaml": "defaults: [algorithm: linear]\n",
    "models/algorithm/linear.yaml": "size: 1\n",
    "models/algorithm/deep.yaml": "size: 2\n",
    "other/ppo_trainer.yaml": "defaults: [algorithm: linear, _self_]\nlr: 1\n",
    "other/algorithm/linear.yaml": "size: 1\n",
    # Those that speak of verl in comments alone.
    "commented/config.yaml": "# see verl/trainer/config/ppo_trainer.yaml\nalgorithm: ppo # verl.trainer.config\n",
    "commented_group/config.yaml": "lr: 1\n# as verl.trainer.config has it\n",
    "commented_group/algorithm/linear.yaml": "size: 1\n",
    # One with a recipe for verl beside it.
    "mixed/config.yaml": "algorithm: ppo\n",
    "mixed/run.yaml": ON_VERL + "defaults: [ppo_trainer]\n",
}

# name: (primary config folder, config name, command line). Composed alike with the plugin and without it.
JOB = ("--cfg", "job")
ALL = ("--cfg", "all")
SWEEP = ("-m", "hydra/hydra_logging=disabled", "hydra/job_logging=disabled")
UNASKED = {
    "verl": (VERL, "ppo_trainer", JOB),
    "verl, megatron": ("pkg://verl.trainer.config", "ppo_megatron_trainer", (*JOB, "algorithm.gamma=0.9")),
    "verl, choices": (VERL, "ppo_trainer", ("--cfg", "hydra", "-p", "hydra.runtime.choices")),
    "copied": ("copied", "ppo_trainer", JOB),
    "flat": ("flat", "all", JOB),
    "recipe": ("recipe", "run", JOB),
    "named": ("named", "ppo_trainer", JOB),
    "named, found": ("found", "run", JOB),
    "named, first on the command line": ("recipe", "run", (*JOB, "--config-dir", "mine")),
    "group": (VERL, "ppo_trainer", (*JOB, "--config-dir", "group", "+algorithm=grpo")),
    "group by search path": (VERL, "ppo_trainer", (*JOB, "+algorithm=grpo", "hydra.searchpath=[file://group]")),
    "group of a recipe, overridden": ("grouped", "run", (*JOB, "algorithm=grpo")),
    "group of a recipe, nested": ("nested", "run", (*JOB, "algorithm=grpo")),
    "group, swept": ("grouped", "run", (*SWEEP, "algorithm=glob(*)")),
    "plain": ("plain", "config", (*ALL, "algorithm=dqn")),
    "plain, search path": ("plain", "config", ("--info", "searchpath")),
    "plain, help": ("plain", "config", ("--help",)),
    "plain, completion": ("plain", "config", ("-sc", "query=bash")),
    "models": ("models", "config", (*ALL, "algorithm=deep")),
    "models, unknown": ("models", "config", (*ALL, "algorithm=sspo")),
    "models, search path": ("models", "config", ("--info", "searchpath")),
    "models, help": ("models", "config", ("--help",)),
    "models, completion": ("models", "config", ("-sc", "query=bash")),
    "models, swept": ("models", "config", (*SWEEP, "algorithm=glob(*)")),
    "models, config dir": (None, None, (*ALL, "--config-dir", "models", "+algorithm=deep")),
    "other": ("other", "ppo_trainer", ALL),
    "other, search path": ("other", "ppo_trainer", ("--info", "searchpath")),
    "mixed": ("mixed", "config", (*ALL, "algorithm=dqn")),
    "commented": ("commented", "config", (*ALL, "algorithm=a2c")),
    "commented, group": ("commented_group", "config", (*ALL, "+algorithm=grpo")),
}
# With the plugin installed only.
ASKED = {
    "verl": (VERL, "ppo_trainer", (*JOB, "algorithm=sspo")),
    "verl, link": ("link/", "ppo_trainer", (*JOB, "algorithm=sspo")),
    "recipe": ("recipe", "run", (*JOB, "algorithm=sspo")),
    "recipe, link": ("linked", "run", (*JOB, "algorithm=sspo")),
    "recipe, in its file": ("recipe", "chosen", JOB),
    "recipe, all swept": ("recipe", "run", (*SWEEP, "algorithm=glob(*)")),
    "entry": ("entry", "run", JOB),
    "entry, overridden": ("entry", "run", (*JOB, "algorithm=gspo")),
    "ours": (RECIPES, "quickstart", JOB),
    "ours, overridden": (RECIPES, "smollm2_135m", (*JOB, "algorithm=gspo")),
    "ours beside verl's": (VERL, "quickstart", ("--config-dir", str(RECIPES), *JOB)),
    "ours with a group": (RECIPES, "quickstart", ("--config-dir", "group", *JOB, "algorithm=dapo")),
    "group": (VERL, "ppo_trainer", ("--config-dir", "group", *JOB, "algorithm=sspo")),
    "group, a name of ours": (VERL, "ppo_trainer", ("--config-dir", "group", *JOB, "algorithm=grpo")),
    "group of a recipe": ("grouped", "run", (*JOB, "algorithm=sspo")),
    "correction": (VERL, "ppo_trainer", ("--config-dir", "correction", *JOB, "algorithm=sspo")),
    "verl, unknown": (VERL, "ppo_trainer", (*JOB, "algorithm=ppso")),
    "verl, help": (VERL, "ppo_trainer", ("--help",)),
    # Files of the user without a slot.
    "copied": ("copied", "ppo_trainer", (*JOB, "algorithm=sspo")),
    "copied, as told": ("copied", "ppo_trainer", (*JOB, "+algorithm=sspo")),
    "flat": ("flat", "all", (*JOB, "algorithm=sspo")),
    "flat, as told": ("flat", "all", (*JOB, "+algorithm=sspo")),
    "named": ("named", "ppo_trainer", (*JOB, "algorithm=sspo")),
    "named, as told": ("named", "ppo_trainer", (*JOB, "+algorithm=sspo")),
}


def fill(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copytree(VERL, folder / "copied")
    own = folder / "copied" / "ppo_trainer.yaml"
    edited = own.read_text().replace("estimator: gae", "estimator: grpo").replace("epochs: 30", "epochs: 77")
    own.write_text(edited)
    (folder / "flat").mkdir()
    shutil.copy(VERL / "_generated_ppo_trainer.yaml", folder / "flat" / "all.yaml")
    (folder / "link").symlink_to(VERL)


def application(config: DictConfig) -> None:
    print(OmegaConf.to_yaml(config))


def run(main: Path | str | None, name: str | None, arguments: tuple[str, ...]) -> dict:
    if main is not None and "://" not in str(main):
        main = os.path.join(os.getcwd(), main)  # keeps a link and a trailing slash
    sys.argv = ["application.py", *arguments]
    os.environ["COMP_LINE"] = "python application.py algorithm"
    code, out, error = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            hydra.main(config_path=main and str(main), config_name=name, version_base=None)(application)()
        except SystemExit as end:
            code = end.code
        except HydraException as refusal:  # --info reports none
            code = str(refusal)
    return {"code": code, "out": out.getvalue(), "error": error.getvalue()}


def main(folder: str, plugin: str) -> None:
    fill(Path(folder))
    os.chdir(folder)
    if plugin == "hidden":
        sys.modules["hydra_plugins"] = None
    cases = {"unasked": UNASKED} | ({"asked": ASKED} if plugin == "installed" else {})
    print(json.dumps({kind: {name: run(*case) for name, case in those.items()} for kind, those in cases.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])

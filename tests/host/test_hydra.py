"""`algorithm=` on verl's stock configs, through Hydra's own plugin discovery."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compose import trainer_config
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException

from hydra_plugins.sspo_verl._folders import fills_slot

TRAINERS = ["ppo_trainer", "ppo_megatron_trainer"]
# algorithm=: (adv_estimator, loss_mode, clip_ratio_low, clip_ratio_high)
ALGORITHMS = {
    "sspo": ("sspo", "sspo", 0.2, 0.2),
    "sspo_no_entropy_clip": ("sspo", "sspo", 0.2, 0.2),
    "sspo_length": ("sspo", "sspo", 0.2, 0.2),
    "sspo_turn": ("sspo", "sspo", 0.2, 0.2),
    "grpo": ("grpo", "vanilla", 0.2, 0.2),
    "gspo": ("grpo", "gspo", 3e-4, 4e-4),
    "gspo_wide": ("grpo", "gspo", 0.2, 0.2),
}


def run(*command, cwd, check=True):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithm_composes(trainer, algorithm):
    config = trainer_config(f"algorithm={algorithm}", name=trainer)
    actor = config.actor_rollout_ref.actor
    found = config.algorithm.adv_estimator, actor.policy_loss.loss_mode, actor.clip_ratio_low, actor.clip_ratio_high
    assert found == ALGORITHMS[algorithm]
    assert actor.loss_agg_mode == "seq-mean-token-mean"
    # The rest of verl's node is still there.
    assert config.algorithm.norm_adv_by_std_in_grpo is True
    assert config.algorithm.rollout_correction.bypass_mode is False


@pytest.fixture(scope="module")
def applications(tmp_path_factory):
    """Output of many applications with the plugin installed and with it hidden, each in one process."""
    script = Path(__file__).parents[1] / "lib" / "hydra_applications.py"
    folders = {plugin: tmp_path_factory.mktemp("folder") for plugin in ("installed", "hidden")}
    running = {
        plugin: subprocess.Popen(
            [sys.executable, script, folder, plugin], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for plugin, folder in folders.items()
    }
    found = {}
    for plugin, process in running.items():
        out, error = process.communicate(timeout=900)
        assert process.returncode == 0, error
        found[plugin] = json.loads(out.replace(str(folders[plugin]), "FOLDER"))
    return found


def test_installing_changes_no_application(applications):
    installed, hidden = (applications[plugin]["unasked"] for plugin in ("installed", "hidden"))
    assert [name for name in hidden if installed[name] != hidden[name]] == []
    # Each did what it is there for.
    refused = [name for name in hidden if hidden[name]["code"]]
    assert refused == ["models, unknown", "commented, group"]
    for name, words in {
        "copied": ["adv_estimator: grpo", "total_epochs: 77"],
        "named": ["path: mine"],
        "named, found": ["path: mine"],
        "group": ["gamma: 0.7"],
        "group of a recipe, nested": ["gamma: 0.7"],
        "plain": ["algorithm: dqn"],
        "plain, completion": ["algorithm="],
        "group, swept": ["gamma: 0.6", "gamma: 0.7"],
        "models, swept": ["algorithm:\n  size: 2\n\nalgorithm:\n  size: 1\n"],
        "models, search path": ["main ", "FOLDER/models"],
    }.items():
        assert all(word in installed[name]["out"] for word in words), name


def test_algorithm_is_chosen_wherever_verls_own_config_is_the_base(applications):
    asked = {name: case["out"] for name, case in applications["installed"]["asked"].items()}
    what = r"^      loss_mode: (\w+)\n(?s:.*?)^  gamma: ([\d.]+)\n(?s:.*?)^  adv_estimator: (\w+)"
    sspo, grpo, gspo = ("sspo", "1.0", "sspo"), ("vanilla", "1.0", "grpo"), ("gspo", "1.0", "grpo")
    expected = {
        "verl": [sspo],
        "verl, link": [sspo],
        "recipe": [sspo],
        "recipe, link": [sspo],
        "recipe, in its file": [grpo],
        "recipe, all swept": [grpo, gspo, gspo, sspo, sspo, sspo, sspo],
        "entry": [sspo],
        "entry, overridden": [gspo],
        "ours": [sspo],
        "ours, overridden": [gspo],
        "ours beside verl's": [sspo],
        "ours with a group": [("vanilla", "0.6", "grpo")],
        "group": [sspo],
        "group, a name of ours": [("vanilla", "0.7", "grpo")],
        "group of a recipe": [sspo],
        "correction": [sspo],
    }
    assert {name: re.findall(what, asked[name], re.MULTILINE) for name in expected} == expected
    assert (
        "algorithm: grpo, gspo, gspo_wide, rollout_correction, sspo, sspo_length, sspo_no_entropy_clip, sspo_turn"
        in asked["verl, help"]
    )


def test_what_cannot_be_chosen_is_refused_with_what_to_write(applications):
    asked = applications["installed"]["asked"]
    assert re.search("(?s)Available.*grpo.*gspo.*sspo.*sspo_no_entropy_clip", asked["verl, unknown"]["error"])
    for name in ("copied", "flat", "named"):
        assert asked[name]["code"] == 1
        assert "To append to your default list use +algorithm=sspo" in asked[name]["error"]
        assert "adv_estimator: sspo" in asked[f"{name}, as told"]["out"], name


@pytest.mark.parametrize(
    ("defaults", "fills"),
    [
        ("defaults:\n- ppo_trainer\n- algorithm: x\n", True),
        ("# mine\ndefaults: # all\n\n  # these\n  - ppo_trainer\n  - optional '/algorithm': x\nlr: 1\n", True),
        ("defaults: [ppo_trainer, {algorithm: x}]\n", True),
        ("defaults: [\n  ppo_trainer,\n  algorithm: x,\n]\n", True),
        ("defaults:\n- ppo_trainer\n- override algorithm: x\n", False),
        ("defaults:\n- algorithm@algorithm.rollout_correction: x\n- my/algorithm: x\n- an_algorithm: x\n", False),
        ("defaults:\n- ppo_trainer\nalgorithm: {gamma: 1}\nothers:\n- algorithm: x\n", False),
    ],
)
def test_an_entry_of_ones_own_is_recognised(tmp_path, defaults, fills):
    (tmp_path / "run.yaml").write_text(defaults)
    assert fills_slot(tmp_path) is fills


def test_a_group_in_the_config_store_wins():
    stored = ConfigStore.instance()
    stored.store(group="algorithm", name="grpo", node={"algorithm": {"gamma": 0.4}}, package="_global_")
    try:
        assert trainer_config("+algorithm=grpo").algorithm.gamma == 0.4
        assert trainer_config("+algorithm=sspo").algorithm.adv_estimator == "sspo"
    finally:
        del stored.repo["algorithm"]


def test_command_line_overrides_win_over_the_algorithm():
    config = trainer_config(
        "algorithm=sspo", "algorithm.gamma=0.5", "actor_rollout_ref.actor.policy_loss.alpha=0.1", name="ppo_trainer"
    )
    assert (config.algorithm.gamma, config.actor_rollout_ref.actor.policy_loss.alpha) == (0.5, 0.1)
    with pytest.raises(HydraException, match="clip_lo"):
        trainer_config("algorithm=sspo", "actor_rollout_ref.actor.policy_loss.clip_lo=0.1")


def test_main_ppo_composes_it(tmp_path):
    job = run(sys.executable, "-m", "verl.trainer.main_ppo", "algorithm=sspo", "--cfg", "job", cwd=tmp_path).stdout
    assert "loss_mode: sspo" in job
    assert "_target_: sspo_verl.config.SSPOPolicyLossConfig" in job


def test_hydra_apps_load_neither_verl_nor_torch(tmp_path):
    """Not even one that composes verl's configs, if it names their folder and not the package."""
    app = tmp_path / "app.py"
    app.write_text(
        "import sys, hydra\n"
        "from hydra_plugins.sspo_verl._folders import verl_config_dir\n"
        "def main(config): print('algorithm' in config)\n"
        "hydra.main(config_path=None, version_base=None)(main)()\n"
        "sys.argv += ['algorithm=sspo', 'hydra.run.dir=.']\n"
        "hydra.main(config_path=str(verl_config_dir()), config_name='ppo_trainer', version_base=None)(main)()\n"
        "print(sorted({'verl', 'torch', 'ray', 'jaxtyping'} & set(sys.modules)))\n"
    )
    assert run(sys.executable, app, cwd=tmp_path).stdout.split("\n")[:-1] == ["False", "True", "[]"]


def test_verl_need_not_be_installed(tmp_path):
    """The slot then is not available, and other apps work as before."""
    app = tmp_path / "app.py"
    app.write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'verl' else find(name, *a)\n"
        "import hydra\n"
        "@hydra.main(config_path=None, version_base=None)\n"
        "def main(config): print('ran')\n"
        "main()\n"
    )
    done = run(sys.executable, app, cwd=tmp_path)
    assert done.stdout.strip() == "ran"

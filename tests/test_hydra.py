"""`algorithm=` on verl's stock configs, through Hydra's own plugin discovery."""

import subprocess
import sys

import pytest
from compose import trainer_config
from hydra.errors import HydraException

MAIN = [sys.executable, "-m", "verl.trainer.main_ppo"]
TRAINERS = ["ppo_trainer", "ppo_megatron_trainer"]
# algorithm=: (adv_estimator, loss_mode, clip_ratio_low, clip_ratio_high)
ALGORITHMS = {
    "sspo": ("sspo", "sspo", 0.2, 0.2),
    "sspo_no_entropy_clip": ("sspo", "sspo", 0.2, 0.2),
    "grpo": ("grpo", "vanilla", 0.2, 0.2),
    "gspo": ("grpo", "gspo", 3e-4, 4e-4),
}


def run(*command, cwd, check=True):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
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


def test_without_algorithm_the_config_is_stock_verls(tmp_path):
    """Composed by Hydra once with this plugin and once with `hydra_plugins` hidden from it."""
    script = tmp_path / "compose_all.py"
    script.write_text(
        "import sys\n"
        "from hydra import compose, initialize_config_module\n"
        "from hydra.core.plugins import Plugins\n"
        "from omegaconf import OmegaConf\n"
        "if sys.argv[1] == 'stock': sys.modules['hydra_plugins'] = None\n"
        "with initialize_config_module('verl.trainer.config', version_base=None):\n"
        "    for name in ('ppo_trainer', 'ppo_megatron_trainer'):\n"
        "        print(OmegaConf.to_yaml(compose(name, overrides=['algorithm.gamma=0.9'])))\n"
        "print('sspo-verl' in str([p.__name__ for p in Plugins.instance().discover()]), file=sys.stderr)\n"
        "print([p.__name__ for p in Plugins.instance().discover()], file=sys.stderr)\n"
    )
    ours, stock = (run(sys.executable, script, which, cwd=tmp_path) for which in ("ours", "stock"))
    assert "AlgorithmSlot" in ours.stderr
    assert "AlgorithmSlot" not in stock.stderr
    assert ours.stdout == stock.stdout
    assert "gamma: 0.9" in ours.stdout


def test_an_unknown_algorithm_is_refused_with_the_list():
    with pytest.raises(HydraException, match=r"(?s)grpo.*gspo.*sspo.*sspo_no_entropy_clip"):
        trainer_config("algorithm=ppso")


def test_command_line_overrides_win_over_the_algorithm():
    config = trainer_config(
        "algorithm=sspo", "algorithm.gamma=0.5", "actor_rollout_ref.actor.policy_loss.alpha=0.1", name="ppo_trainer"
    )
    assert (config.algorithm.gamma, config.actor_rollout_ref.actor.policy_loss.alpha) == (0.5, 0.1)
    with pytest.raises(HydraException, match="clip_lo"):
        trainer_config("algorithm=sspo", "actor_rollout_ref.actor.policy_loss.clip_lo=0.1")


def test_cfg_job_and_help_of_main_ppo(tmp_path):
    job = run(*MAIN, "algorithm=sspo", "--cfg", "job", cwd=tmp_path).stdout
    assert "loss_mode: sspo" in job
    assert "_target_: sspo_verl.config.SSPOPolicyLossConfig" in job
    assert "algorithm: grpo, gspo" in run(*MAIN, "--help", cwd=tmp_path).stdout


def test_multirun_sweeps_over_algorithms(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(
        "import hydra\n"
        "@hydra.main(config_path='pkg://verl.trainer.config', config_name='ppo_trainer', version_base=None)\n"
        "def main(config): print('swept', config.actor_rollout_ref.actor.policy_loss.loss_mode)\n"
        "main()\n"
    )
    swept = run(sys.executable, app, "-m", "algorithm=sspo,grpo,gspo", cwd=tmp_path).stdout
    assert [line for line in swept.splitlines() if line.startswith("swept")] == [
        "swept sspo",
        "swept vanilla",
        "swept gspo",
    ]


def test_other_hydra_apps_load_neither_verl_nor_torch(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(
        "import sys, hydra\n"
        "@hydra.main(config_path=None, version_base=None)\n"
        "def main(config): pass\n"
        "main()\n"
        "assert 'hydra_plugins.sspo_verl.algorithm_slot' in sys.modules\n"
        "print(sorted({'verl', 'torch', 'ray', 'jaxtyping'} & set(sys.modules)))\n"
    )
    assert run(sys.executable, app, cwd=tmp_path).stdout.strip() == "[]"


def test_verl_need_not_be_installed(tmp_path):
    """The slot then is not available, and other apps go on as before."""
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

"""The installed plugin in its host: fresh processes, the real verl, a real Ray worker."""

import copy
import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import SimpleNamespace

import pytest
import verl
from compose import RUNNABLE

from sspo_verl.plugin import actor, check_run, driver, engine, register
from sspo_verl.plugin.hook import after_import
from sspo_verl.tools.runs.ray_child import RayChild

ROOT = Path(__file__).parents[2]


def python(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """Run a script in a fresh interpreter, away from the checkout: it sees the installed package only."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=cwd,
        env=os.environ | {"PYTHONSAFEPATH": "1"} | env,
        capture_output=True,
        text=True,
        timeout=900,
    )


def output(script: str, cwd: Path, **env: str) -> str:
    done = python(script, cwd, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


REGISTERED = """
    def registered():
        import verl
        from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
        from verl.workers.engine_workers import ppo_loss
        from verl.utils.config import validate_config
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer, reduce_metrics
        from verl.trainer.ppo.v1.trainer_base import compute_advantage_for_multi_trajectories as of_sessions
        functions = get_policy_loss_fn("sspo"), get_adv_estimator_fn("sspo"), ppo_loss, validate_config
        from verl.trainer.main_ppo import run_ppo
        functions += run_ppo, of_sessions, reduce_metrics
        functions += PPOTrainer.step, PPOTrainer._init_tokenizer, PPOTrainer._dump_generations
        return [f"{f.__module__}.{f.__name__}.{hasattr(f, '__wrapped__')}" for f in functions]
"""
EXPECTED = str(
    [
        "sspo_verl.plugin.actor.policy_loss.False",
        "sspo_verl.plugin.driver.advantage_estimator.False",
        "verl.workers.utils.losses.ppo_loss.True",
        "verl.utils.config.validate_config.True",
        "verl.trainer.main_ppo.run_ppo.True",
        "verl.trainer.ppo.v1.utils.compute_advantage_for_multi_trajectories.True",
        "verl.utils.metric.utils.reduce_metrics.True",
        "verl.trainer.ppo.v1.trainer_base.step.True",
        "verl.trainer.ppo.v1.trainer_base._init_tokenizer.True",
        "verl.trainer.ppo.v1.trainer_base._dump_generations.True",
    ]
)


def test_the_installed_package_is_this_checkout(tmp_path):
    script = "import sspo_verl, hydra_plugins.sspo_verl as h; print(sspo_verl.__file__, h.__file__)"
    for found in output(script, tmp_path).split():
        installed = Path(found).parent
        source = ROOT / ("hydra_plugins/sspo_verl" if "hydra_plugins" in found else "sspo_verl")
        assert installed != source, "the tests must see what a user installs"
        for path in source.rglob("*"):
            if path.suffix in (".py", ".yaml") or path.name == "VERSION":
                copy = installed / path.relative_to(source)
                assert copy.exists(), f"{copy} was not packaged; is it in setup.py?"
                digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, copy)]
                assert digests[0] == digests[1], f"{copy} is stale; run bash scripts/env.sh"


def test_registered_in_the_driver(tmp_path):
    assert output(REGISTERED + "\n    print(registered())", tmp_path) == EXPECTED


def test_main_ppo_as_the_program_looks_at_the_data_before_ray_starts(tmp_path):
    """`python -m` does not import it, so that none of its functions is wrapped."""
    paths = (f"actor_rollout_ref.model.path={tmp_path}", f"data.train_files={tmp_path}/none.parquet")
    call = ("-m", "verl.trainer.main_ppo", "algorithm=sspo", *paths, *RUNNABLE)
    done = subprocess.run([sys.executable, *call], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1
    assert f"ValueError: data.train_files: {tmp_path}/none.parquet is not there" in done.stderr
    assert "ray init kwargs" not in done.stdout


def test_seams_are_tried_one_by_one(tmp_path):
    """Where one does not fit, the others are tried all the same."""
    script = """
        import json
        import verl.trainer.main_ppo
        del verl.trainer.main_ppo.run_ppo
        from sspo_verl.plugin.seams import seams
        print(json.dumps(seams()))
    """
    found = json.loads(output(script, tmp_path, VERL_USE_EXTERNAL_PLUGINS="none"))
    broken = {seam: error for seam, error in found.items() if error}
    # ppo_loss was taken when main_ppo was imported: told as well.
    assert list(broken) == [
        "verl.workers.utils.losses, by sspo_verl.plugin.register._extend_losses",
        "verl.trainer.main_ppo, by sspo_verl.plugin.check_run.wrap_run_ppo",
    ]
    assert "verl.trainer.main_ppo.run_ppo(config, task_runner_class), which verl" in list(broken.values())[1]
    assert len(found) > 10


def test_registered_in_a_ray_worker(tmp_path, monkeypatch):
    script = REGISTERED + (
        "\n    import ray"
        "\n    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)"
        "\n    print(ray.get(ray.remote(registered).remote()))"
    )
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(script)]
    child = RayChild(command, os.environ | {"PYTHONSAFEPATH": "1", "RAY_USAGE_STATS_ENABLED": "0"}, tmp_path / "log")
    try:
        assert child.wait() == 0, child.text()
    finally:
        child.stop()
    assert EXPECTED in child.text().splitlines()


def test_loading_the_plugin_imports_nothing_heavy(tmp_path):
    script = "import verl, sys; print(' '.join(sorted(sys.modules)))"
    ours = set(output(script, tmp_path).split())
    without = set(output(script, tmp_path, VERL_USE_EXTERNAL_PLUGINS="none").split())
    assert "sspo_verl.plugin.register" in ours - without
    foreign = {name for name in ours - without if not name.startswith("sspo_verl")}
    assert foreign <= {"graphlib", "contextvars"}, foreign


def test_a_plugin_that_fails_to_load_is_loud(tmp_path):
    """Broken on purpose: verl alone would continue in silence."""
    script = """
        import sys
        sys.modules["sspo_verl.plugin.hook"] = None
        import verl
        print("verl continued")
        from sspo_verl.config import SSPOPolicyLossConfig
        SSPOPolicyLossConfig()
    """
    done = python(script, tmp_path)
    assert "verl continued" in done.stdout
    assert "sspo_verl could not be loaded: SSPO is missing in this process." in done.stderr
    assert done.returncode != 0, "whoever asks for SSPO must be told"
    assert "sspo_verl.plugin.hook" in done.stderr
    assert "import sspo_verl.plugin.register" in done.stderr.splitlines()[-1]


def test_with_verls_plugins_off_whoever_asks_for_sspo_is_told(tmp_path):
    script = "from sspo_verl.config import SSPOPolicyLossConfig; SSPOPolicyLossConfig()"
    done = python(script, tmp_path, VERL_USE_EXTERNAL_PLUGINS="none")
    assert done.returncode != 0
    assert "VERL_USE_EXTERNAL_PLUGINS must be unset, or name sspo_verl" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("extend", "module"),
    [
        (register.register_algorithm, SimpleNamespace(__name__="core_algos")),
        (actor.wrap_ppo_loss, SimpleNamespace(__name__="losses", ppo_loss=lambda model_output: None)),
        (actor.wrap_get_policy_loss_fn, SimpleNamespace(__name__="losses", get_policy_loss_fn=lambda: None)),
        (engine.wrap_fsdp_engine, SimpleNamespace(FSDPEngineWithLMHead=type("FSDPEngineWithLMHead", (), {}))),
        (check_run.wrap_validate_config, SimpleNamespace(__name__="config", validate_config="gone")),
        (check_run.wrap_run_ppo, SimpleNamespace(__name__="main_ppo", run_ppo=lambda config: None)),
        (driver.wrap_reduce_metrics, SimpleNamespace(__name__="metric", reduce_metrics=lambda data: None)),
        (driver.wrap_trainer, SimpleNamespace(PPOTrainer=type("PPOTrainer", (), {"step": lambda self, data: None}))),
    ],
)
def test_another_verl_gets_an_error_that_names_its_version(extend, module):
    with pytest.raises(RuntimeError, match=rf"verl {verl.__version__} does not have.*supports verl 0\.9\.1"):
        extend(module)


def test_loaded_too_late_is_an_error(monkeypatch):
    from verl.workers.utils import losses

    monkeypatch.setitem(sys.modules, "verl.workers.engine_workers", SimpleNamespace(ppo_loss=losses.ppo_loss))
    with pytest.raises(RuntimeError, match="VERL_USE_EXTERNAL_PLUGINS"):
        actor.wrap_ppo_loss(losses)


def test_registering_twice_is_harmless_and_a_stranger_is_not():
    from verl.trainer.ppo import core_algos

    register.register_algorithm(core_algos)
    ours = core_algos.POLICY_LOSS_REGISTRY["sspo"]
    core_algos.POLICY_LOSS_REGISTRY["sspo"] = test_loaded_too_late_is_an_error
    try:
        with pytest.raises(RuntimeError, match='"sspo" is taken by'):
            register.register_algorithm(core_algos)
    finally:
        core_algos.POLICY_LOSS_REGISTRY["sspo"] = ours


def test_after_import_patches_once_and_hands_errors_on(tmp_path, monkeypatch):
    for name in ("sspo_test_late", "sspo_test_bad"):
        (tmp_path / f"{name}.py").write_text("value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    after_import("sspo_test_late", lambda module: seen.append(module.value))
    after_import("sspo_test_late", lambda module: seen.append("second"))
    assert seen == []
    import sspo_test_late  # pyright: ignore[reportMissingImports]

    assert seen == [1, "second"]
    after_import("sspo_test_late", lambda module: seen.append(module is sspo_test_late))
    assert seen == [1, "second", True]

    def refuse(module):
        raise RuntimeError("this verl is not supported")

    after_import("sspo_test_bad", refuse)
    for _ in range(2):  # what was refused stays refused
        with pytest.raises(RuntimeError, match="not supported"):
            import sspo_test_bad  # pyright: ignore[reportMissingImports]  # noqa: F401


def importing(tmp_path, monkeypatch, name, code="value = 1"):
    """Write a module and return the list to which its patch adds the module's value."""
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    after_import(name, lambda module: seen.append(module.value))
    return seen


def test_looking_for_a_module_keeps_its_patches_and_its_loader(tmp_path, monkeypatch):
    seen = importing(tmp_path, monkeypatch, "sspo_test_sought")
    specs = [importlib.util.find_spec("sspo_test_sought") for _ in range(2)]
    assert [copy.copy(spec.loader).get_source("sspo_test_sought") for spec in specs] == ["value = 1"] * 2
    assert seen == []
    module = importlib.import_module("sspo_test_sought")
    assert seen == [1]
    assert importlib.util.find_spec("sspo_test_sought") is module.__spec__
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader
    importlib.reload(module)  # runs the module's code anew, over what the patch had done
    assert seen == [1, 1]


def test_a_failed_import_keeps_its_patches(tmp_path, monkeypatch):
    seen = importing(tmp_path, monkeypatch, "sspo_test_fixed", "raise OSError('not now')")
    with pytest.raises(OSError, match="not now"):
        importlib.import_module("sspo_test_fixed")
    (tmp_path / "sspo_test_fixed.py").write_text("value = 'second time'")
    importlib.invalidate_caches()
    importlib.import_module("sspo_test_fixed")
    assert seen == ["second time"]


def test_a_patch_registered_while_the_module_runs_sees_it_complete(tmp_path, monkeypatch):
    code = (
        "from sspo_verl.plugin.hook import after_import\n"
        "late = []\n"
        "after_import(__name__, lambda module: late.append(module.value))\n"
        "value = 2\n"
    )
    seen = importing(tmp_path, monkeypatch, "sspo_test_running", code)
    assert importlib.import_module("sspo_test_running").late == seen == [2]


@pytest.mark.parametrize("by", ["finder", "importer"])
def test_a_lazy_module_is_patched_when_its_code_runs(tmp_path, monkeypatch, by):
    """Modules that another finder makes lazy, or whose importer does, as Python's documentation has it."""
    name = f"sspo_test_lazy_{by}"
    seen = importing(tmp_path, monkeypatch, name)
    lazy = PathFinder.find_spec(name)
    lazy.loader = importlib.util.LazyLoader(lazy.loader)
    if by == "finder":
        finder = SimpleNamespace(find_spec=lambda sought, path, target=None: lazy if sought == name else None)
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path[:1], finder, *sys.meta_path[1:]])
        module = importlib.import_module(name)
    else:
        spec = importlib.util.find_spec(name)
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    assert seen == []
    assert module.value == 1
    assert seen == [1]
    assert type(lazy.loader.loader) is SourceFileLoader  # the other finder's spec is as it was

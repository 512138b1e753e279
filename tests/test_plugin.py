"""The installed plugin in its host: fresh processes, the real verl, a real Ray worker."""

import hashlib
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import verl

from sspo_verl import actor, check_run, driver, engine, register
from sspo_verl.import_hook import after_import

ROOT = Path(__file__).parent.parent


def python(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """Run a script in a fresh interpreter, away from the checkout: it sees the installed package only."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=cwd,
        env=os.environ | {"PYTHONSAFEPATH": "1"} | env,
        capture_output=True,
        text=True,
        timeout=180,
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
        functions = get_policy_loss_fn("sspo"), get_adv_estimator_fn("sspo"), ppo_loss, validate_config
        functions += reduce_metrics, PPOTrainer.step, PPOTrainer._dump_generations
        return [f"{f.__module__}.{f.__name__}.{hasattr(f, '__wrapped__')}" for f in functions]
"""
EXPECTED = str(
    [
        "sspo_verl.actor.policy_loss.False",
        "sspo_verl.driver.advantage_estimator.False",
        "verl.workers.utils.losses.ppo_loss.True",
        "verl.utils.config.validate_config.True",
        "verl.utils.metric.utils.reduce_metrics.True",
        "verl.trainer.ppo.v1.trainer_base.step.True",
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


def test_a_wheel_holds_all_that_is_needed(tmp_path):
    source = tmp_path / "source"
    for name in ("sspo_verl", "hydra_plugins"):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = source / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    for name in ("setup.py", "pyproject.toml", "README.md"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        entry_points = wheel.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert "sspo_verl = sspo_verl.plugin" in entry_points
    assert "sspo_verl_cpu = sspo_verl.cpu.for_vllm:register" in entry_points
    for algorithm in ("sspo", "sspo_no_entropy_clip", "grpo", "gspo"):
        assert f"sspo_verl/conf/algorithm/{algorithm}.yaml" in names
    assert "hydra_plugins/sspo_verl/algorithm_slot.py" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"sspo_verl", "hydra_plugins"}


def test_registered_in_the_driver(tmp_path):
    assert output(REGISTERED + "\n    print(registered())", tmp_path) == EXPECTED


def test_registered_in_a_ray_worker(tmp_path):
    script = REGISTERED + (
        "\n    import ray"
        "\n    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)"
        "\n    print(ray.get(ray.remote(registered).remote()))"
    )
    assert output(script, tmp_path, RAY_USAGE_STATS_ENABLED="0") == EXPECTED


def test_loading_the_plugin_imports_nothing_heavy(tmp_path):
    script = "import verl, sys; print(' '.join(sorted(sys.modules)))"
    ours = set(output(script, tmp_path).split())
    without = set(output(script, tmp_path, VERL_USE_EXTERNAL_PLUGINS="none").split())
    assert "sspo_verl.register" in ours - without
    foreign = {name for name in ours - without if not name.startswith("sspo_verl")}
    assert foreign <= {"graphlib", "contextvars"}, foreign


def test_a_plugin_that_fails_to_load_is_loud(tmp_path):
    """Broken on purpose: verl alone would go on in silence."""
    script = """
        import sys
        sys.modules["sspo_verl.import_hook"] = None
        import verl
        print("verl went on")
        import sspo_verl.config
    """
    done = python(script, tmp_path)
    assert "verl went on" in done.stdout
    assert "sspo_verl could not be loaded: there is no SSPO in this process." in done.stderr
    assert done.returncode != 0, "whoever asks for SSPO must be told"
    assert "sspo_verl.import_hook" in done.stderr.splitlines()[-1]


def test_with_verls_plugins_off_the_config_still_registers(tmp_path):
    script = REGISTERED + "\n    import sspo_verl.config\n    print(registered())"
    assert output(script, tmp_path, VERL_USE_EXTERNAL_PLUGINS="none") == EXPECTED


@pytest.mark.parametrize(
    ("extend", "module"),
    [
        (register.register_algorithm, SimpleNamespace(__name__="core_algos")),
        (actor.wrap_ppo_loss, SimpleNamespace(__name__="losses", ppo_loss=lambda model_output: None)),
        (actor.wrap_get_policy_loss_fn, SimpleNamespace(__name__="losses", get_policy_loss_fn=lambda: None)),
        (engine.wrap_fsdp_engine, SimpleNamespace(FSDPEngineWithLMHead=type("FSDPEngineWithLMHead", (), {}))),
        (check_run.wrap_validate_config, SimpleNamespace(__name__="config", validate_config="gone")),
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
    with pytest.raises(RuntimeError, match="not supported"):
        import sspo_test_bad  # pyright: ignore[reportMissingImports]  # noqa: F401

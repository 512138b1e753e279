"""The sdist, and the wheel built from it, in a fresh environment: their files, and the errors without the extras."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = ("sspo_verl", "hydra_plugins")


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the sdist and the wheel, built from a copy, so that nothing of an earlier build gets in."""
    out = tmp_path_factory.mktemp("dist")
    copy = out / "copy"
    copy.mkdir()
    for name in (*PACKAGES, "tests", "scripts", "docs", "recipes", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("[!.]*.*"):
        if file.is_file():
            shutil.copy(file, copy)
    shutil.copy(ROOT / "LICENSE", copy)
    run(sys.executable, "-c", f"import setuptools.build_meta as b; b.build_sdist({str(out)!r})", cwd=copy)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run(*pip, "-w", out, next(out.glob("*.tar.gz")), cwd=out)
    return out


def test_the_wheel_and_the_sdist_hold_the_package_and_nothing_else(dist):
    files = {path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    files = {str(path) for path in files if "__pycache__" not in path.parts}
    assert {"sspo_verl/VERSION", "sspo_verl/py.typed", "sspo_verl/conf/algorithm/sspo.yaml"} <= files
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files
        entry_points = wheel.read(next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))).decode()
    for line in ("sspo_verl = sspo_verl.plugin.load", "sspo_verl_cpu = sspo_verl.plugin.cpu.for_vllm:register"):
        assert line in entry_points
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert files | {"README.md", "LICENSE", "CHANGELOG.md", "setup.py", "pyproject.toml"} <= names
    assert not {name for name in names if name.startswith(("tests", "scripts", "benchmarks", "docs", "recipes"))}


@pytest.mark.slow
def test_the_wheel_in_a_fresh_environment(dist):
    fresh = dist / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=dist)
    python = fresh / "bin" / "python"
    wheel = next(dist.glob("*.whl"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=dist)
    # Without the extras, which is to say with nothing else at all: each names the one to install.
    said = run(fresh / "bin" / "sspo", "doctor", cwd=dist, code=1)
    assert said.startswith("sspo: the command sspo needs click, rich, matplotlib, jinja2, which are not installed: ")
    assert "pip install 'sspo_verl[tools]'" in said
    said = run(python, "-c", "import sspo_verl.reward.math", cwd=dist, code=1).splitlines()[-1]
    assert (
        "sspo_verl.reward.math needs math_verify, latex2sympy2_extended, antlr4, regex, which are not installed" in said
    )
    assert "pip install 'sspo_verl[math]'" in said
    # With what the test's own environment holds behind it, the plugin is found by verl, in this copy.
    site = next(fresh.glob("lib/python*/site-packages"))
    (site / "rest.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("site-packages")))
    assert run(fresh / "bin" / "sspo", "--version", cwd=dist).endswith((ROOT / "sspo_verl/VERSION").read_text().strip())
    script = "import sys, verl; print(sys.modules['sspo_verl.plugin.register'].__file__)"
    assert run(python, "-c", script, cwd=dist).splitlines()[-1] == str(site / "sspo_verl" / "plugin" / "register.py")


def test_a_plain_install_brings_the_method_and_the_plugin_only():
    requires = [Requirement(text) for text in importlib.metadata.requires("sspo_verl")]
    plain = {requirement.name for requirement in requires if requirement.marker is None}
    assert plain == {"verl", "torch", "hydra-core", "omegaconf", "jaxtyping", "typing-extensions"}
    assert set(importlib.metadata.metadata("sspo_verl").get_all("Provides-Extra")) == {"math", "gym", "tools"}

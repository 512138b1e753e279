"""What scripts/slurm/ says before anything expensive, and what it makes of an allocation. Needs no Slurm."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SCRIPT = "scripts/slurm/train.sbatch"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"slurm_{name}", TOP / "scripts" / "slurm" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plan = load("plan")
ray_node = load("ray_node")


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM", "SSPO", "CUDA_VISIBLE", "ROCR_VISIBLE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(TOP)


def call(*arguments: str, folder: Path = TOP) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(folder / SCRIPT), *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_without_slurm_it_checks_and_submits_nothing():
    done = call("quickstart", "platform=cpu", "trainer.total_training_steps=3")
    assert done.returncode == 0, done.stderr
    assert "platform cpu" in done.stdout
    assert f"{TOP}/runs/quickstart/sspo" in done.stdout
    assert "Nothing was submitted" in done.stdout


def test_no_recipe():
    done = call("platform=cpu")
    assert done.returncode == 2
    assert "name a recipe first, one of: quickstart" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["nothing_like_it"],
            r"there is no recipe nothing_like_it \(recipes/nothing_like_it.yaml\). There are: .*quick",
        ),
        (["quickstart", "--nodes=2"], "'--nodes=2' is no Hydra override .* options of sbatch stand before the script"),
        (["quickstart", "trainer.nodes=2"], "Hydra does not accept these settings: .*trainer.nodes"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        plan.plan(arguments)


def test_not_in_a_checkout(tmp_path):
    done = subprocess.run(["bash", str(TOP / SCRIPT), "quickstart"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{tmp_path} is not the top of a checkout" in done.stderr


def test_no_environment(tmp_path):
    shutil.copytree(TOP / "scripts" / "slurm", tmp_path / "scripts" / "slurm")
    (tmp_path / "recipes").mkdir()
    done = call("quickstart", folder=tmp_path)
    assert done.returncode == 2
    assert f"no environment {tmp_path}/.venv" in done.stderr
    assert "scripts/env.sh" in done.stderr


def allocate(monkeypatch, tmp_path, **variables: str) -> None:
    monkeypatch.setenv("SSPO_RUN_DIR", str(tmp_path / "run"))
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_gpus_and_nodes_come_from_the_allocation(monkeypatch, tmp_path):
    allocate(monkeypatch, tmp_path, JOB_ID="1", JOB_NUM_NODES="2", GPUS_ON_NODE="8")
    lines = plan.plan(["quickstart", "algorithm=grpo"])
    assert "before=(trainer.resume_mode=auto trainer.nnodes=2 trainer.n_gpus_per_node=8)" in lines
    assert "slots=''" in lines, "real GPUs are not pretended"
    assert not any(line.startswith("export") for line in lines)
    assert f"attempt={tmp_path}/run/attempts/1" in lines
    assert f"attempt={tmp_path}/run/attempts/2" in plan.plan(["quickstart"]), "a requeued job has its own folder"


def test_a_cpu_gets_slots_and_its_environment(monkeypatch, tmp_path):
    allocate(monkeypatch, tmp_path, JOB_ID="1", JOB_NUM_NODES="2")
    lines = plan.plan(["quickstart", "platform=cpu", "trainer.n_gpus_per_node=3"])
    assert "slots=3" in lines
    assert "export TORCHDYNAMO_DISABLE=1" in lines


@pytest.mark.parametrize(
    ("variables", "arguments", "said"),
    [
        ({}, [], "the job has no GPUs: sbatch --gpus-per-node"),
        ({"GPUS_ON_NODE": "4"}, ["trainer.nnodes=2"], r"trainer.nnodes=2, but the job has 1 node\(s\)"),
        ({"GPUS_ON_NODE": "4"}, ["trainer.n_gpus_per_node=8"], "n_gpus_per_node=8, but the job has 4 GPUs on a node"),
    ],
)
def test_less_than_the_settings_want(monkeypatch, tmp_path, variables, arguments, said):
    allocate(monkeypatch, tmp_path, JOB_ID="1", JOB_NUM_NODES="1", **variables)
    with pytest.raises(ValueError, match=said):
        plan.plan(["quickstart", *arguments])


def command(monkeypatch, *options: str, **variables: str) -> list[str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["ray_node.py", *options, "--dir=/tmp/sspo-1", "--logs=/nowhere"])
    return ray_node.ray_command(ray_node.parse(), "node7", Path("/tmp/sspo-1-head0"))


GIBIBYTE = 2**30


@pytest.mark.parametrize(
    ("variables", "bytes_given"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4 * GIBIBYTE),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "6"}, 6 * GIBIBYTE),
        ({"SLURM_MEM_PER_GPU": "2048", "SLURM_GPUS_ON_NODE": "2"}, 4 * GIBIBYTE),
        ({}, None),
    ],
)
def test_ray_gets_what_slurm_gave(monkeypatch, variables, bytes_given):
    monkeypatch.setattr(ray_node.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1000 * GIBIBYTE))
    words = command(monkeypatch, "head", **variables)
    assert f"--num-cpus={variables.get('SLURM_CPUS_ON_NODE') or len(os.sched_getaffinity(0))}" in words
    assert f"--num-gpus={variables.get('SLURM_GPUS_ON_NODE', 0)}" in words
    stores = [word for word in words if word.startswith("--object-store-memory=")]
    # Ray's own share of a machine's memory is 0.3; without a limit it decides by itself.
    assert stores == ([f"--object-store-memory={int(0.3 * bytes_given)}"] if bytes_given else [])


def test_the_object_store_fits_into_shared_memory(monkeypatch):
    monkeypatch.setattr(ray_node.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, GIBIBYTE))
    words = command(monkeypatch, "head", SLURM_MEM_PER_NODE="65536")
    assert f"--object-store-memory={int(0.9 * GIBIBYTE)}" in words


def test_the_visible_gpus_count_where_slurm_names_none(monkeypatch):
    assert "--num-gpus=2" in command(monkeypatch, "worker", "--address=a:1", CUDA_VISIBLE_DEVICES="0,3")
    assert "--num-gpus=5" in command(monkeypatch, "worker", "--address=a:1", "--slots=5")


def test_a_path_too_long_for_rays_sockets(tmp_path):
    done = subprocess.run(
        [sys.executable, "scripts/slurm/ray_node.py", "head", f"--dir=/tmp/{'x' * 60}", f"--logs={tmp_path}"],
        cwd=TOP,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "set SSPO_TMP to a shorter one" in done.stdout

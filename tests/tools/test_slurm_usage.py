"""Errors of scripts/slurm/ before anything expensive, and its plan of an allocation. Needs no Slurm."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fake_checkpoints
import pytest

from sspo_verl.tools.tasks import arithmetic

TOP = Path(__file__).parents[2]
SCRIPT = "scripts/slurm/train.sbatch"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"slurm_{name}", TOP / "scripts" / "slurm" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.append(str(TOP / "scripts" / "slurm"))  # as where Python runs a file of it
plan = load("plan")
allocation = plan.allocation
ray_node = load("ray_node")
resume = load("resume")


def planned(arguments: list[str]) -> list[str]:
    return plan.plan(plan.ask(arguments))


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM", "SSPO", "CUDA_VISIBLE", "ROCR_VISIBLE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(TOP)


def call(*arguments: str, folder: Path = TOP) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(folder / SCRIPT), *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )


def test_a_start_resumes_from_a_complete_checkpoint_and_removes_old_ones(tmp_path, capsys):
    contents = ("model", "optimizer", "extra")
    assert resume.main(str(tmp_path / "new"), "30", "2", *contents) == 0
    for step in (10, 20, 30, 40):
        fake_checkpoints.make(tmp_path, step)
    fake_checkpoints.cut(tmp_path / "global_step_40" / "actor" / "optim_world_size_1_rank_0.pt")
    assert resume.main(str(tmp_path), "40", "2", *contents) == 0
    said = capsys.readouterr().out
    assert "train.sbatch: The checkpoint of step 40 is damaged" in said
    assert "resumes from step 30" in said
    assert sorted(path.name for path in tmp_path.glob("global_step_*")) == ["global_step_20", "global_step_30"]
    assert resume.main(str(tmp_path), "", "", *contents) == 0  # of steps that only the data tell
    assert resume.main(str(tmp_path), "30", "2", *contents) == resume.FINISHED
    assert "step 30 of 30 is done" in capsys.readouterr().out


def test_the_plan_says_what_is_looked_at_before_a_start():
    def line(*overrides):
        (found,) = [each for each in planned(["quickstart", "platform=cpu", *overrides]) if each.startswith("resume=")]
        return found

    assert line() == "resume=(runs/quickstart/sspo/checkpoints 30 2 model optimizer extra)"
    assert line("trainer.total_training_steps=null", "trainer.max_actor_ckpt_to_keep=null").split()[1:3] == ["''", "''"]
    assert line("trainer.resume_mode=disable") == "resume=()"


@pytest.fixture
def data(monkeypatch, tmp_path):
    """The data of the recipe `quickstart`, and an empty folder for its model."""
    arithmetic.write_parquet(tmp_path / "start" / "data")
    (tmp_path / "start" / "model").mkdir()
    monkeypatch.setenv("SSPO_START_DIR", str(tmp_path / "start"))


def test_data_and_settings_are_checked_before_ray_is_started(monkeypatch, tmp_path):
    monkeypatch.setenv("SSPO_START_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=rf"model.path={tmp_path}/model: there is no such folder here"):
        plan.check(plan.ask(["quickstart", "platform=cpu"]).config)
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match=rf"data.train_files: {tmp_path}/data/train.parquet is not there"):
        plan.check(plan.ask(["quickstart", "platform=cpu"]).config)
    too_large = "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=128"
    with pytest.raises(ValueError, match=r"log_prob_micro_batch_size_per_gpu=128 does not divide the 64 responses"):
        plan.check(plan.ask(["quickstart", "platform=cpu", "data.train_batch_size=7", too_large]).config)


@pytest.mark.usefixtures("data")
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
            r"there is no recipe nothing_like_it in recipes/. Choose one of .*quick",
        ),
        (
            ["elsewhere/quickstart.yaml"],
            r"there is no recipe elsewhere/quickstart.yaml in recipes/. Choose one of .*quick",
        ),
        (["quickstart", "--nodes=2"], "'--nodes=2' is not a Hydra override .* options of sbatch go before the script"),
        (["quickstart", "trainer.nodes=2"], "Hydra does not accept these settings: .*trainer.nodes"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        planned(arguments)


@pytest.mark.parametrize(
    "asked", ["quickstart", "quickstart.yaml", "recipes/quickstart.yaml", str(TOP / "recipes/quickstart")]
)
def test_a_recipe_may_be_named_by_its_file(asked):
    assert plan.choose_recipe([asked, "a=1"]) == ("quickstart", ["a=1"])


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
    lines = planned(["quickstart", "algorithm=grpo"])
    assert "before=(trainer.resume_mode=auto trainer.nnodes=2 trainer.n_gpus_per_node=8)" in lines
    assert "slots=''" in lines, "real GPUs are not pretended"
    assert not any(line.startswith("export") for line in lines)
    assert f"run_folder={tmp_path}/run" in lines
    assert "overrides=(algorithm=grpo)" in lines


def test_a_checkpoint_of_another_number_of_gpus_is_refused(monkeypatch, tmp_path):
    fake_checkpoints.make(tmp_path / "run" / "checkpoints", 10, ranks=8)
    allocate(monkeypatch, tmp_path)
    planned(["quickstart"])  # outside a job nobody knows how many there will be
    allocate(monkeypatch, tmp_path, JOB_ID="1", JOB_NUM_NODES="2", GPUS_ON_NODE="8")
    with pytest.raises(ValueError, match=r"global_step_10 was saved by 8 rank\(s\), and this run has 16 .*node=4\."):
        planned(["quickstart"])
    planned(["quickstart", "trainer.n_gpus_per_node=4"])
    planned(["quickstart", "trainer.total_training_steps=10"])  # at its last step: resume.py ends it


def test_each_task_of_an_array_has_a_seed_and_so_a_folder_of_its_own(monkeypatch):
    """sbatch takes one command for all tasks: $SLURM_... in an override is the task's."""
    for name, value in {"JOB_ID": "12", "JOB_NUM_NODES": "1", "GPUS_ON_NODE": "4", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    lines = planned(["qwen2_5_math_1_5b"])
    assert any(line.startswith("before=") and " data.seed=3 " in line for line in lines)
    assert f"run_folder={TOP}/runs/qwen2_5_math_1_5b/sspo-3" in lines
    own = "trainer.experiment_name=lr$SLURM_ARRAY_TASK_ID-${SLURM_JOB_ID}"
    lines = planned(["qwen2_5_math_1_5b", "data.seed=7", own])
    assert "overrides=(data.seed=7 trainer.experiment_name=lr3-12)" in lines
    assert f"run_folder={TOP}/runs/qwen2_5_math_1_5b/lr3-12" in lines
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    with pytest.raises(ValueError, match=r"\$SLURM_ARRAY_TASK_ID in .* is not set here"):
        planned(["qwen2_5_math_1_5b", own])


def test_a_heterogeneous_job_is_refused(monkeypatch):
    monkeypatch.setenv("SLURM_HET_SIZE", "2")
    with pytest.raises(ValueError, match=r"heterogeneous jobs .* are not supported: ask for nodes of one kind"):
        planned(["quickstart"])


# Environments


@pytest.mark.usefixtures("data")
@pytest.mark.slow
def test_another_environment_and_a_command_before_it(monkeypatch, tmp_path):
    """In a checkout without .venv."""
    for name in ("scripts", "recipes"):
        (tmp_path / name).symlink_to(TOP / name)
    seen = tmp_path / "seen"
    prefix = tmp_path / "a container"
    prefix.write_text(f'#!/bin/sh\necho "$1" >> {seen}\nshift\nexec "$@"\n')
    prefix.chmod(0o755)
    monkeypatch.setenv("SSPO_PYTHON", sys.executable)
    monkeypatch.setenv("SSPO_CONTAINER", f"'{prefix}' --nv")
    done = call("quickstart", "platform=cpu", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert seen.read_text() == "--nv\n--nv\n", "the look at the environment, and the plan"

    (tmp_path / "empty").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], check=True)
    monkeypatch.setenv("SSPO_PYTHON", str(tmp_path / "empty" / "bin" / "python"))
    monkeypatch.delenv("SSPO_CONTAINER")
    done = call("quickstart", "platform=cpu", folder=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path}/empty/bin/python has no verl" in done.stderr
    assert "no environment to train with" in done.stderr


# One job in a run folder


@pytest.fixture
def lock(tmp_path):
    """A function: what train.sbatch's hold_run says to a job, and how it ends. squeue knows the jobs in `jobs`."""
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(
        f"""#!/bin/bash
for word in "$@"; do [[ $word == --jobs=* ]] && job=${{word#--jobs=}}; done
state=$(cat {tmp_path}/jobs/$job 2>/dev/null) && echo "$state" && exit
[[ -e {tmp_path}/jobs/down ]] && echo "slurm_load_jobs error: Unable to contact slurm controller" >&2 && exit 1
echo "slurm_load_jobs error: Invalid job id specified" >&2
exit 1
"""
    )
    squeue.chmod(0o755)
    (tmp_path / "jobs").mkdir()

    def start(job: int, what: str = "hold_run", **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", "-c", f"source scripts/slurm/run_lock.sh; {what} {tmp_path}/run"],
            cwd=TOP,
            env=os.environ
            | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": str(job), "SSPO_LOCK_SECONDS": "2"}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def say(*arguments, **more) -> tuple[int, str]:
        process = start(*arguments, **more)
        said, _ = process.communicate(timeout=900)
        return process.returncode, said

    say.start = start
    say.state = lambda job, state: (tmp_path / "jobs" / str(job)).write_text(state)
    say.file = tmp_path / "run" / "slurm.lock"
    return say


def test_a_second_job_is_kept_out_of_a_run_folder(lock):
    assert lock(1) == (0, "")
    for state in ("RUNNING", "PENDING", "SUSPENDED", "REQUEUE_HOLD"):  # PENDING: it was requeued, and comes back
        lock.state(1, state)
        code, said = lock(2)
        assert code == 1
        assert f"job 1 has it and is {state}" in said
        assert "another data.seed (in an array each task has its own), or SSPO_RUN_DIR" in said
    assert lock(2, "release_run") == (0, "")
    assert lock.file.exists(), "only its holder releases it"
    assert lock(1, SLURM_RESTART_COUNT="1") == (0, ""), "requeued, it takes its own lock back"
    assert lock.file.read_text().startswith("job=1 start=2 ")
    assert lock(1, "release_run") == (0, "")
    assert sorted(lock.file.parent.iterdir()) == []
    assert lock(2) == (0, "")


def test_the_lock_of_a_job_that_is_gone_is_taken_over_and_of_no_other(lock):
    assert lock(1) == (0, "")
    code, said = lock(2)  # squeue does not know it
    assert (code, lock.file.read_text().split()[0]) == (0, "job=2")
    assert "the lock of a job that is gone is taken over: job=1 start=1" in said
    for number, state in enumerate(("COMPLETED", "CANCELLED", "NODE_FAIL", ""), start=2):  # it knows it as ended
        lock.state(number, state)
        assert lock(number + 1)[0] == 0, state
    lock.state("down", "")
    code, said = lock(9)
    assert code == 1
    assert "job 6 has it and is unknown (slurm_load_jobs error: Unable to contact slurm controller)" in said
    (lock.file.parent.parent / "jobs" / "down").unlink()
    code, said = lock(9, SLURM_CLUSTER_NAME="other")
    assert code == 1
    assert "job 6 of another user or cluster" in said
    lock.state(6, "COMPLETING")
    code, said = lock(9)
    assert code == 1
    assert "is in use: still so after 2 s (job 6 is COMPLETING)" in said


def test_of_many_jobs_at_once_one_gets_a_stale_lock(lock):
    for job in range(11, 17):
        lock.state(job, "RUNNING")
    for _ in range(5):
        lock.file.unlink(missing_ok=True)
        assert lock(1)[0] == 0
        processes = [lock.start(job) for job in range(11, 17)]
        codes = [process.wait(timeout=900) for process in processes]
        for process in processes:
            process.stdout.close()
        assert sorted(codes) == [0] + [1] * 5
        assert lock.file.read_text().split()[0] == f"job={11 + codes.index(0)}"
        assert [file.name for file in lock.file.parent.iterdir()] == ["slurm.lock"]


def test_a_cpu_gets_slots_and_its_environment(monkeypatch, tmp_path):
    allocate(monkeypatch, tmp_path, JOB_ID="1", JOB_NUM_NODES="2")
    lines = planned(["quickstart", "platform=cpu", "trainer.n_gpus_per_node=3"])
    assert "slots=3" in lines
    assert "export TORCHDYNAMO_DISABLE=1" in lines


@pytest.mark.parametrize(
    ("variables", "arguments", "said"),
    [
        ({}, [], "the job has no GPUs: sbatch --gpus-per-node"),
        ({"GPUS_ON_NODE": "4"}, ["trainer.nnodes=2"], r"trainer.nnodes=2, but the job has 1 node\(s\)"),
        ({"GPUS_ON_NODE": "4"}, ["trainer.n_gpus_per_node=8"], "n_gpus_per_node=8, but the job has 4 GPUs per node"),
    ],
)
def test_less_than_the_settings_want(monkeypatch, tmp_path, variables, arguments, said):
    allocate(monkeypatch, tmp_path, JOB_ID="1", JOB_NUM_NODES="1", **variables)
    with pytest.raises(ValueError, match=said):
        planned(["quickstart", *arguments])


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
        ({"SLURM_MEM_PER_NODE": "64G"}, 64 * GIBIBYTE),
        ({"SLURM_MEM_PER_NODE": "65536M"}, 64 * GIBIBYTE),
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


@pytest.mark.parametrize(
    ("counted", "listed", "gpus"),
    [
        ("8", "", 8),
        (" 8", "0", 8),
        ("a100:4", "", 4),
        ("gpu:a100:4", "", 4),
        ("8(x2)", "", 8),
        ("gpu:4(S:0-1,3)", "", 4),
        ("gpu:a100:4,gpu:v100:2", "", 6),
        ("", "0-3", 4),
        ("", "0,1,4-6", 5),
        ("", "GPU-8932f937-d72c,MIG-41b3", 2),
        *(("", nothing, 0) for nothing in ("", "NoDevFiles", "none", "-1")),
    ],
)
def test_gpus_in_every_notation(monkeypatch, counted, listed, gpus):
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", counted)
    for name, count in (("SLURM_JOB_GPUS", plan.gpus_of_a_node), ("CUDA_VISIBLE_DEVICES", ray_node.gpus)):
        monkeypatch.setenv(name, listed)
        assert count() == gpus


def test_cpus_in_every_notation_and_what_cannot_be_read_is_named(monkeypatch):
    for text in ("16", "16(x2)", "16,16"):
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", text)
        assert allocation.cpus() == 16
    for name, text, read in (
        ("SLURM_CPUS_ON_NODE", "many", allocation.cpus),
        ("SLURM_GPUS_ON_NODE", "a100", lambda: allocation.gpus("SLURM_JOB_GPUS")),
        ("SLURM_MEM_PER_NODE", "64 gigs", lambda: allocation.memory(0)),
    ):
        monkeypatch.setenv(name, text)
        with pytest.raises(ValueError, match=f"{name}='{text}'"):
            read()


@pytest.mark.parametrize("written", ["a=${SLURM_ARRAY_TASK_ID:-1}", "a=$((SLURM_ARRAY_TASK_ID+1))"])
def test_an_expression_of_the_shell_is_not_handed_on(monkeypatch, written):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with pytest.raises(ValueError, match="only \\$SLURM_NAME and"):
        plan.of_the_task([written])
    with pytest.raises(ValueError, match="where text follows a name, write"):
        plan.of_the_task(["a=$SLURM_ARRAY_TASK_ID_x"])


@pytest.mark.parametrize("override", ["trainer.max_actor_ckpt_to_keep=2.5", "trainer.total_training_steps=1e3"])
def test_numbers_that_are_not_integers_are_named(override):
    with pytest.raises(ValueError, match=f"{override.split('=')[0]} must be an integer.*, or null, got"):
        plan.check(plan.ask(["quickstart", "platform=cpu", override]).config)


def test_a_path_too_long_for_rays_sockets(tmp_path):
    done = subprocess.run(
        [sys.executable, "scripts/slurm/ray_node.py", "head", f"--dir=/tmp/{'x' * 60}", f"--logs={tmp_path}"],
        cwd=TOP,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "set SSPO_TMP to a shorter one" in done.stdout


def test_one_variable_names_the_interface_on_each_node(monkeypatch):
    """Every machine has lo; of several names the first that is there counts."""
    words = command(monkeypatch, "worker", "--address=a:1", "--towards=192.0.2.1", SSPO_INTERFACE="ib7,lo")
    assert words.count("--node-ip-address=127.0.0.1") == 1
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    assert ray_node.interface_variables("ib0") == {"NCCL_SOCKET_IFNAME": "=ib0", "GLOO_SOCKET_IFNAME": "mine"}
    with pytest.raises(ValueError, match=r"SSPO_INTERFACE=ib7: this node has no such interface .* It has lo \(127"):
        command(monkeypatch, "worker", "--address=a:1", SSPO_INTERFACE="ib7")
    monkeypatch.delenv("SSPO_INTERFACE")
    assert ray_node.interface() is None


def test_a_nodes_part_has_a_short_tmpdir_of_its_own_and_the_limits_that_are_allowed(tmp_path):
    """Ray is replaced by a script that says what it was started with."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("")
    (tmp_path / "ray" / "scripts").mkdir()
    (tmp_path / "ray" / "scripts" / "scripts.py").write_text(
        "import os, resource, tempfile\n"
        "names = 'TMPDIR', 'NCCL_SOCKET_IFNAME', 'GLOO_SOCKET_IFNAME'\n"
        "print('SEEN', *[os.environ.get(n) for n in names], tempfile.gettempdir(),\n"
        "      len(set(resource.getrlimit(resource.RLIMIT_NOFILE))))\n"
    )
    short = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    try:
        done = subprocess.run(
            [
                "bash",
                "-c",
                f"ulimit -Sn 256; {sys.executable} scripts/slurm/ray_node.py head --dir={short}/r --logs={short}",
            ],
            cwd=TOP,
            env=os.environ
            | {
                "TMPDIR": f"/nowhere/{'x' * 90}",
                "PYTHONPATH": f"{tmp_path}:{TOP}",
                "SSPO_INTERFACE": "lo",
                "SLURMD_NODENAME": "n1",
            },
            capture_output=True,
            text=True,
            timeout=900,
        )
        (log,) = short.glob("ray-n1.log")
        directory = f"{short}/r-head0"
        assert f"SEEN {directory}/t =lo lo {directory}/t 1" in log.read_text(), (
            done.stdout + done.stderr + log.read_text()
        )
        assert not Path(directory).exists()
    finally:
        shutil.rmtree(short)

"""scripts/slurm/train.sbatch on a real Slurm with two nodes, set up on this machine by tests/lib/slurm_cluster.py."""

import json
import os
import re
import shutil
import signal
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from slurm_cluster import Cluster, missing_programs, slurm_cluster, variables

from sspo_verl.tools.quickstart import model as small
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.runs import attempts
from sspo_verl.tools.runs.folder import RunDir
from sspo_verl.tools.tasks import arithmetic

TOP = Path(__file__).parents[2]
SCRIPT = "scripts/slurm/train.sbatch"
MINUTES = 20  # for a real run on a busy machine
UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
BAD_USAGE, NO_CLUSTER, TIME_OVER = 2, 3, 138  # train.sbatch's own exit codes
# One rank on each node.
SMALL = (
    "platform=cpu",
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=1",
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"Slurm is not installed (no {', '.join(missing_programs())}): slurm-wlm, munge",
    ),
]


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster() as found:
        yield found


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A model that has learnt nothing, and the data."""
    folder = tmp_path_factory.mktemp("start")
    tokenizer = byte_tokenizer.build()
    small.save(small.new_model(tokenizer), tokenizer, folder / "model")
    arithmetic.write_parquet(folder / "data")
    return folder


@dataclass
class Job:
    """One job of train.sbatch."""

    cluster: Cluster
    number: str
    log: Path
    run: RunDir

    @property
    def state(self) -> str:
        return self.cluster.job(self.number)["JobState"]

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_until(self, is_so, minutes: float = MINUTES) -> None:
        deadline = time.monotonic() + 60 * minutes
        while not is_so():
            if time.monotonic() > deadline or (self.state not in UNFINISHED and not is_so()):
                self.cluster.run("scancel", self.number)
                pytest.fail(f"job {self.number} is {self.state} after {minutes} minutes at most\n{self.text[-6000:]}")
            time.sleep(0.1)

    def exit_code(self, minutes: float = MINUTES) -> int:
        self.wait_until(lambda: self.state not in UNFINISHED, minutes)
        return int(self.cluster.job(self.number)["ExitCode"].split(":")[0])

    def starts(self) -> int:
        """Number of starts of the script."""
        return len(re.findall(r"train\.sbatch: job \d+, start \d+", self.text))

    def last_checkpoint(self) -> int:
        return self.run.last_checkpoint()

    def steps(self, attempt: int) -> list[int]:
        lines = (self.run.path / "attempts" / str(attempt) / attempts.METRICS).read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    def assert_nothing_is_left(self) -> None:
        """No process of the job, and no file of Ray's."""
        deadline = time.monotonic() + 20

        def left() -> list[str]:
            found = [
                p for p in psutil.process_iter() if variables(p).get("SLURM_JOB_ID") == self.number and not is_zombie(p)
            ]
            return [repr(p) for p in found] + [str(p) for p in Path("/tmp").glob(f"sspo-{self.number}-*")]

        while left() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left() == []


def is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


@pytest.fixture
def submit(cluster, tmp_path, start):
    """A function that submits a job; those that are left at the end are cancelled."""
    jobs: list[Job] = []

    def submit(*arguments: str, options: tuple[str, ...], run: str = "run", **environment: str) -> Job:
        folder = tmp_path / run
        log = tmp_path / f"{run}.log"
        more = {
            "SSPO_RUN_DIR": str(folder),
            "SSPO_START_DIR": str(start),
            "PYTHONPATH": str(TOP),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(tmp_path / "cache"),
            **environment,
        }
        number = cluster.run(
            *("sbatch", "--parsable", "--mem=3G", "--cpus-per-task=8", f"--output={log}", *options),
            *(SCRIPT, "quickstart", *SMALL, *arguments),
            cwd=TOP,
            env=cluster.environment | more,
        )
        job = Job(cluster, number.strip(), log, RunDir(folder))
        jobs.append(job)
        return job

    yield submit
    for job in jobs:
        if keep := os.environ.get("SSPO_TEST_SLURM_LOGS"):  # for a look at them later
            shutil.copy(job.log, Path(keep) / f"{job.number}-{tmp_path.name}-{job.log.name}")
        if job.state in UNFINISHED:
            cluster.run("scancel", job.number)
            job.wait_until(lambda job=job: job.state not in UNFINISHED)


@pytest.fixture
def waiting_trainer(tmp_path) -> dict[str, str]:
    """The environment for a trainer that says which cluster it is in, and waits for a file with its exit code."""
    (tmp_path / "waiting_trainer.py").write_text(
        textwrap.dedent("""
            import os, pathlib, sys, time
            import ray

            overrides = dict(a.lstrip("+").split("=", 1) for a in sys.argv[1:] if "=" in a)
            address = overrides["ray_kwargs.ray_init.address"].strip("'")
            ray.init(address, log_to_driver=False)
            def told():
                return [os.environ.get(name) for name in ("TMPDIR", "NCCL_SOCKET_IFNAME", "IN_CONTAINER")]

            print("TOLD", told(), ray.get(ray.remote(told).remote()), flush=True)
            print("TRAINER", address, sorted(n["NodeName"] for n in ray.nodes() if n["Alive"]), flush=True)
            file = pathlib.Path(os.environ["SSPO_RUN_DIR"]) / "exit_code"
            while not file.exists():
                time.sleep(0.1)
            two = ray.get(ray.remote(lambda: 1 + 1).remote())
            print("TRAINER found Ray at work:", two, flush=True)
            sys.exit(int(file.read_text()))
        """)
    )
    return {"SSPO_MAIN": "waiting_trainer", "PYTHONPATH": f"{tmp_path}:{TOP}"}


def test_two_nodes_train_to_the_end_though_one_is_killed(cluster, submit):
    """The node dies with all that ran on it; the job is requeued, and resumes from the last checkpoint."""
    steps = 3
    job = submit(f"trainer.total_training_steps={steps}", options=("--nodes=2",))
    job.wait_until(lambda: job.last_checkpoint() >= 1)
    assert job.text.count("all 2 nodes have joined Ray") == 1
    cluster.kill_node("n2")
    try:
        job.wait_until(lambda: job.state != "RUNNING")
    finally:
        cluster.start_node("n2")  # the machine is back
    assert job.exit_code() == 0, job.text[-6000:]
    assert job.starts() == 2
    assert "ended with" in job.text
    assert "because a node was lost" in job.text
    first, second = job.steps(1), job.steps(2)
    # A step's checkpoint is there before its line of metrics, so there may be no line yet.
    assert steps not in first, "the node was killed too late to tell"
    assert second[0] > 1, "the second start did not resume from a checkpoint"
    assert second == list(range(second[0], steps + 1))
    assert job.last_checkpoint() == steps
    checkpoint = job.run.checkpoints / f"global_step_{steps}" / "actor"
    assert sorted(file.name for file in checkpoint.glob("model_*.pt")) == [
        "model_world_size_2_rank_0.pt",
        "model_world_size_2_rank_1.pt",
    ]
    job.assert_nothing_is_left()


def test_a_worker_that_never_joins_is_named(cluster, submit):
    """The daemon of n2 answers no more, so that srun cannot start Ray there."""
    limit = 45  # Ray's head has to be up within it, too, on a busy machine
    daemon = psutil.Process(cluster.daemons["slurmd-n2"].pid)
    job = submit(options=("--nodes=2",), SSPO_JOIN_SECONDS=str(limit))
    try:
        job.wait_until(lambda: "--head" in job.text)
        daemon.send_signal(signal.SIGSTOP)
        job.wait_until(lambda: "train.sbatch: exit code" in job.text)
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert job.exit_code() == NO_CLUSTER
    assert "train.sbatch: the Ray cluster did not come up" in job.text
    (said,) = re.findall(r"not in the Ray cluster after (\d+) s: n2 \(of n1, n2\)", job.text)
    assert limit <= int(said) <= limit + 2
    assert "ray-n1.log" in job.text, "the reader is not shown what Ray said"
    assert not job.run.checkpoints.exists()
    job.assert_nothing_is_left()


def test_two_jobs_on_one_node_do_not_collide(submit, waiting_trainer):
    options = ("--nodes=1", "--nodelist=n1")
    chosen = {"SSPO_INTERFACE": "ib7,lo", "TMPDIR": f"/nowhere/{'x' * 90}", "SSPO_CONTAINER": "env IN_CONTAINER=yes"}
    jobs = [
        submit(options=options, run="first", **waiting_trainer),
        submit(options=options, run="second", **waiting_trainer, **chosen),
    ]
    for job in jobs:
        job.wait_until(lambda job=job: "TRAINER" in job.text)
    assert [job.state for job in jobs] == ["RUNNING", "RUNNING"]
    seen = [re.search(r"TRAINER (\S+) (\[.*?\])", job.text).groups() for job in jobs]
    assert [nodes for _, nodes in seen] == ["['n1']", "['n1']"], "one joined the other's cluster"
    assert seen[0][0] != seen[1][0]

    first, second = jobs
    told = str([f"/tmp/sspo-{second.number}-head0/t", "=lo", "yes"])
    assert f"TOLD {told} {told}" in second.text, "to the trainer and to a task of Ray"
    assert "--node-ip-address=127.0.0.1" in second.text  # which Ray turns into the machine's own address
    # A third in the folder of the first is kept out, and leaves no trace there.
    third = submit(
        options=("--nodes=1", "--nodelist=n2"), run="third", **waiting_trainer | {"SSPO_RUN_DIR": str(first.run.path)}
    )
    assert third.exit_code() == BAD_USAGE
    assert f"job {first.number} has it and is RUNNING" in third.text
    assert [folder.name for folder in first.run.attempts()] == ["1"]

    (first.run.path / "exit_code").write_text("7")
    assert first.exit_code() == 7, first.text
    first.assert_nothing_is_left()
    # The end of the first has not touched the Ray of the second.
    (second.run.path / "exit_code").write_text("0")
    assert second.exit_code() == 0, second.text
    assert not (second.run.path / "slurm.lock").exists()
    assert "TRAINER found Ray at work: 2" in second.text
    second.assert_nothing_is_left()


def test_the_time_limit_requeues_a_bounded_number_of_times_and_cancelling_never(cluster, submit, waiting_trainer):
    job = submit(options=("--nodes=1",), SSPO_MAX_REQUEUES="1", **waiting_trainer)
    for start in (1, 2):
        job.wait_until(lambda start=start: job.text.count("TRAINER") == start)
        cluster.run("scancel", "--batch", "--signal=USR1", job.number)  # as Slurm does before the time limit
    assert job.exit_code() == TIME_OVER, job.text
    assert job.starts() == 2, "requeued, it takes its own lock of the run folder back"
    assert "not requeued: it has been restarted 1 times already" in job.text
    assert not (job.run.path / "slurm.lock").exists()
    job.assert_nothing_is_left()

    job = submit(options=("--nodes=1",), run="cancelled", **waiting_trainer)
    job.wait_until(lambda: "TRAINER" in job.text)
    cluster.run("scancel", job.number)
    job.wait_until(lambda: job.state not in UNFINISHED)
    assert job.state == "CANCELLED"
    assert job.starts() == 1
    job.assert_nothing_is_left()

"""A real Slurm on one machine for tests: munge, a controller, and two nodes n1 and n2, in a folder of its own.

    with slurm_cluster() as cluster:
        cluster.run("sbatch", "--nodes=2", "job.sh")

By hand: `python tests/lib/slurm_cluster.py` keeps one up until Ctrl-C and says how to use it. Needs Debian's packages
slurm-wlm and munge. Nothing of the machine's own set-up is read or written, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sspo_verl.tools.runs.prctl import adopt_orphans

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
NODES = ("n1", "n2")
# Both are the same machine: what they claim to have is for Slurm's books only.
CPUS, MEGABYTES = 16, 8192
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
SECONDS_TO_START = 30

CONFIGURATION = """\
ClusterName=sspo_test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire: so long a requeued job waits before it may start again.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SlurmdTimeout={slurmd_timeout}
# So long srun tries to start a task on a node that does not answer, and a bit more.
MessageTimeout=40
ReturnToService=2
KillWait=30
InactiveLimit=0
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0,defer_batch
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


@dataclass
class Cluster:
    folder: Path
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Ours is all that a command of Slurm needs; nothing of a Slurm around the tests comes in."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
        return {**mine, "PATH": _PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str, check: bool = True, **options) -> str:
        """A command of Slurm to its end; what it printed."""
        options.setdefault("env", self.environment)
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, **options)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """Slurm's record of a job: {"JobState": "RUNNING", ...}."""
        shown = self.run("scontrol", "show", "job", number, "--oneliner", check=False)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def start_node(self, name: str) -> None:
        self._start(f"slurmd-{name}", "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """Kill a node as a power cut does: the daemon and all that runs below it, at once and by force."""
        self._kill(lambda variables: name in (variables.get("SSPO_TEST_NODE"), variables.get("SLURMD_NODENAME")))
        self.daemons[f"slurmd-{name}"].wait()

    def _start(self, name: str, *command: str) -> None:
        environment = self.environment
        if name.startswith("slurmd-"):
            environment["SSPO_TEST_NODE"] = name.removeprefix("slurmd-")
        with open(self.folder / f"{name}.out", "ab") as output:
            self.daemons[name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _kill(self, is_one) -> None:
        """Kill the processes of this cluster for whose environment is_one is true, until there is none."""
        killed: set[int] = set()
        while found := [p for p in self.processes() if is_one(variables(p))]:
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
                killed.add(process.pid)
            time.sleep(0.05)
        for pid in killed:  # orphans have become our children: without this they stay as zombies
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def processes(self) -> list[psutil.Process]:
        """All that belongs to it, jobs and orphans of jobs included: they have its configuration in the environment."""
        mine = os.getpid()
        ours = str(self.folder / "slurm.conf")
        return [p for p in psutil.process_iter() if p.pid != mine and variables(p).get("SLURM_CONF") == ours]

    def up(self, slurmd_timeout: int) -> None:
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.format(
            host=host,
            controller_port=_free_port(),
            user=getpass.getuser(),
            folder=self.folder,
            slurmd_timeout=slurmd_timeout,
        )
        for name in NODES:
            text += (
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} CPUs={CPUS} "
                f"RealMemory={MEGABYTES} State=UNKNOWN\n"
            )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("")
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._start(
            "munged",
            *("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}"),
            *(f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log"),
            f"--seed-file={self.folder}/munged.seed",
        )
        self._wait_until((self.folder / "munge.socket").exists)
        self._start("slurmctld", "slurmctld", "-D", "-c")
        for name in NODES:
            self.start_node(name)
        self._wait_until(lambda: self.run("sinfo", "--noheader", "--format=%T", check=False).split() == ["idle"])

    def _wait_until(self, is_so) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while not is_so():
            ended = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}"
                    for log in sorted(self.folder.iterdir())
                    if log.suffix in (".log", ".out")
                )
                raise RuntimeError(f"the test Slurm did not come up; ended: {', '.join(ended) or 'none'}\n{logs}")
            time.sleep(0.2)

    def down(self) -> None:
        self._kill(lambda variables: True)
        for daemon in self.daemons.values():
            daemon.wait()


def variables(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def slurm_cluster(slurmd_timeout: int = 300) -> Iterator[Cluster]:
    """slurmd_timeout: after so many seconds without a word from it Slurm takes a node for lost (its default)."""
    # What daemons leave behind becomes our child, so that none outlives us unseen.
    adopt_orphans()
    folder = Path(tempfile.mkdtemp(prefix="sspo-slurm-", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        cluster.up(slurmd_timeout)
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    with slurm_cluster() as cluster:
        print(f"A Slurm with {len(NODES)} nodes is up. In another shell: export SLURM_CONF={cluster.folder}/slurm.conf")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()

"""One node's part of a job's Ray cluster, as a task of srun: starts Ray, exits when it exits, and ends it on a signal.

`ray stop` would end the Ray of every job on the node; this only ends what it started.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import signal
import socket
import sys
from pathlib import Path

import allocation
import psutil

from sspo_verl.tools.runs.environment import LONGEST_TEMP_DIR, RAY_START_ENVIRONMENT
from sspo_verl.tools.runs.ray_child import RayChild

OBJECT_STORE_SHARE = 0.3  # of the job's memory on the node: Ray's own default share of a machine
OF_SHARED_MEMORY = 0.9  # of the free shared memory; with more, Ray would use the disk
LONGEST_DIR = LONGEST_TEMP_DIR + 14  # see LONGEST_TEMP_DIR
INTERFACE = "SSPO_INTERFACE"
OPEN_FILES, PROCESSES = 65536, 16384  # Ray's own advice for the first; with less, workers fail to register
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)  # train.sbatch, through srun; and Slurm


class Told(BaseException):
    """A signal told this process to end."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["head", "worker"])
    parser.add_argument("--address", help="the head's address, for a worker")
    parser.add_argument("--towards", help="a host of the cluster; this node's address is the one that reaches it")
    parser.add_argument("--dir", required=True, help="a folder; the role and the task's number are appended")
    parser.add_argument("--logs", required=True, type=Path, help="the folder for the output of `ray start`")
    parser.add_argument("--slots", default="", help="number of GPUs to simulate, on a machine without")
    return parser.parse_args()


def gpus() -> int:
    return allocation.gpus("CUDA_VISIBLE_DEVICES")


def object_store() -> int | None:
    memory = allocation.memory(gpus())
    if memory is None:
        return None
    return int(min(OBJECT_STORE_SHARE * memory, OF_SHARED_MEMORY * shutil.disk_usage("/dev/shm").free))


def own_address(towards: str) -> str | None:
    """The address of the interface that routes to that host. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))
        except OSError as error:
            print(f"ray_node: {towards} is not found ({error}); Ray chooses its own address", flush=True)
            return None
        return probe.getsockname()[0]


def interface() -> tuple[str, str] | None:
    """(name, IPv4 address) of the interface that SSPO_INTERFACE names here, None if it is not set.

    If it lists several, separated by commas, the first that this node has. Raises ValueError if it has none of them.
    """
    names = [name.strip() for name in os.environ.get(INTERFACE, "").split(",") if name.strip()]
    there = {
        name: address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET
    }
    if found := next((name for name in names if name in there), None):
        return found, there[found]
    if names:
        listed = ", ".join(f"{name} ({address})" for name, address in there.items())
        raise ValueError(
            f"{INTERFACE}={','.join(names)}: this node has no such interface with an IPv4 address. It has {listed}"
        )
    return None


def interface_variables(name: str) -> dict[str, str]:
    """Variables for NCCL and Gloo; the user's are kept. NCCL treats a name as a prefix unless it follows =."""
    chosen = {"NCCL_SOCKET_IFNAME": f"={name}", "GLOO_SOCKET_IFNAME": name}
    return {variable: os.environ.get(variable, value) for variable, value in chosen.items()}


def raise_limits() -> None:
    """Raise limits to the allowed maximum; warn if that is low for a node with many CPUs."""
    for what, number, enough in (
        ("open files (ulimit -n)", resource.RLIMIT_NOFILE, OPEN_FILES),
        ("processes (ulimit -u)", resource.RLIMIT_NPROC, PROCESSES),
    ):
        soft, hard = resource.getrlimit(number)
        if soft != hard:
            resource.setrlimit(number, (hard, hard))
        if hard != resource.RLIM_INFINITY and hard < enough:
            print(f"ray_node: at most {hard} {what} here, but Ray needs {enough}: see docs/slurm.md", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def ray_command(options: argparse.Namespace, name: str, directory: Path) -> list[str]:
    """The command that starts Ray. Ray chooses most ports itself; fixed defaults would collide with another job's."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--log-style=pretty", "--log-color=false"]
    if options.role == "head":
        command += ["--head", "--port=0", f"--ray-client-server-port={free_port()}", "--include-dashboard=false"]
    else:
        command.append(f"--address={options.address}")
    command += [
        "--dashboard-agent-listen-port=0",
        f"--node-name={name}",
        f"--temp-dir={directory}",
        f"--num-cpus={allocation.cpus()}",
        f"--num-gpus={options.slots or gpus()}",
    ]
    chosen = interface()
    address = chosen[1] if chosen else own_address(options.towards) if options.towards else None
    if address:
        command.append(f"--node-ip-address={address}")
    if store := object_store():
        command.append(f"--object-store-memory={store}")
    return command


def stop(_number, _frame):
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise Told


def main() -> int:
    options = parse()
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    # Includes the task's number, for nodes that share a machine.
    directory = Path(f"{options.dir}-{options.role}{os.environ.get('SLURM_PROCID', 0)}")
    if len(str(directory)) > LONGEST_DIR:
        print(f"ray_node: {directory} is too long a path for Ray's sockets; set SSPO_TMP to a shorter one", flush=True)
        return 2
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        print(f"ray_node: {directory} exists and cannot be removed: somebody else's? Set SSPO_TMP", flush=True)
        return 2
    # Ray makes its own folder accessible to everybody: it gets one inside.
    (directory / "r").mkdir()
    # The job's TMPDIR may be long, and is the batch node's: vLLM and multiprocessing create sockets in it.
    (directory / "t").mkdir()
    os.environ["TMPDIR"] = str(directory / "t")
    raise_limits()
    # Slurm may set it in addition to CUDA's, and verl refuses both.
    os.environ.pop("ROCR_VISIBLE_DEVICES", None)
    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        command = ray_command(options, name, directory / "r")
        chosen = interface()
    except ValueError as error:
        print(f"ray_node: {name}: {error}", flush=True)
        return 2
    if chosen:
        os.environ.update(variables := interface_variables(chosen[0]))
        # For the trainer, which train.sbatch starts on the head.
        lines = [f"export {key}={shlex.quote(value)}\n" for key, value in variables.items()]
        (directory / "interface.sh").write_text("".join(lines))
    print(f"ray_node: {name}: {' '.join(command[3:])}", flush=True)
    child = RayChild(command, {**RAY_START_ENVIRONMENT, **os.environ}, options.logs / f"ray-{name}.log")
    try:
        print(f"ray_node: {name}: Ray ended with exit code {child.wait()}", flush=True)
        return 1  # also for code 0: Ray should run until it is told to end
    except Told:
        return 0
    finally:
        child.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

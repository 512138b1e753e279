"""Fault injection for the quickstart: seconds until it reports the fault, its exit code, and what was lost.

    .venv/bin/python scripts/faults.py                  faults that are found before Ray starts: seconds each
    .venv/bin/python scripts/faults.py --all            also those in a real run: minutes each
    .venv/bin/python scripts/faults.py 'kill vLLM'      by name

Prints a table in Markdown. Each fault has its own folder below --runs, with the log of its quickstart.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet

from sspo_verl.plugin.checkpoints import KINDS, POINTER
from sspo_verl.tools.quickstart import start
from sspo_verl.tools.runs.folder import RunDir

STEPS = ("trainer.total_training_steps=6", "trainer.save_freq=2", "trainer.test_freq=3")
LOST_CHECKPOINTS = (2, 4)  # complete checkpoints of a run that was "trained" to step 4
MODEL, OPTIMIZER = "actor/model_world_size_1_rank_0.pt", "actor/optim_world_size_1_rank_0.pt"
SECONDS = {"quick": 180, "real": 1200}  # after which a fault counts as not noticed


@dataclass(frozen=True)
class Fault:
    """A fault. prepare: breaks something in the run's folder beforehand. hit: signal sent at step 3 of a real run, to
    the process whose command line contains victim. said: what the quickstart should say (a regular expression)."""

    name: str
    said: str
    overrides: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = lambda run: None
    reward: str = ""  # the body of a reward function
    victim: str = ""
    hit: signal.Signals = signal.SIGKILL

    @property
    def is_real(self) -> bool:
        return bool(self.victim)


def checkpoint(run: Path, step: int) -> Path:
    """A checkpoint like FSDP's, without tensors."""
    folder = run / "checkpoints" / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True)
    for name in ("data.pt", *(f"actor/{kind}_world_size_1_rank_0.pt" for kind in KINDS.values())):
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr("archive/data.pkl", b"0" * 500)
    (run / "checkpoints" / POINTER).write_text(str(step))
    return folder


def trained(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """Prepare a run with two checkpoints, the newest of them damaged."""

    def prepare(run: Path) -> None:
        *_, newest = (checkpoint(run, step) for step in LOST_CHECKPOINTS)
        damage(newest)

    return prepare


def cut(name: str) -> Callable[[Path], None]:
    def damage(newest: Path) -> None:
        data = (newest / name).read_bytes()
        (newest / name).write_bytes(data[: len(data) // 2])

    return damage


def pointer(text: str) -> Callable[[Path], None]:
    return lambda newest: (newest.parent / POINTER).write_text(text) and None


def write(name: str, text: str) -> Callable[[Path], None]:
    def prepare(run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)

    return prepare


def data(change: Callable) -> Callable[[Path], None]:
    """Prepare modified training data of the quickstart, as train.parquet in the run's folder."""

    def prepare(run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        table = pyarrow.parquet.read_table(run.parent / "start" / "data" / "train.parquet")
        pyarrow.parquet.write_table(change(table), run / "train.parquet")

    return prepare


OWN_DATA = ("data.train_files={run}/train.parquet",)
POLICY_LOSS = "actor_rollout_ref.actor.policy_loss"
FAULTS = (
    Fault("model file cut to half", "step 4 is damaged: .*resumes from step 2", prepare=trained(cut(MODEL))),
    Fault(
        "optimizer file missing",
        "step 4 is damaged: .*optim.* is not there",
        prepare=trained(lambda newest: (newest / OPTIMIZER).unlink()),
    ),
    Fault(
        "data.pt missing",
        "has no data.pt.*starts from its beginning",
        prepare=trained(lambda newest: (newest / "data.pt").unlink()),
    ),
    Fault("pointer empty", "holds no step.*resumes from step 4", prepare=trained(pointer(""))),
    Fault(
        "pointer to a folder that is not there", "names step 14,.*resumes from step 4", prepare=trained(pointer("14"))
    ),
    Fault("settings.json half written", "settings.json is damaged", prepare=write("settings.json", '{"st')),
    Fault("finished.json half written", "finished.json is damaged", prepare=write("finished.json", '{"st')),
    Fault("clip_hgih=1.3", "Did you mean clip_high", (f"{POLICY_LOSS}.clip_hgih=1.3",)),
    Fault("clip_high=0.3", "clip_high is an upper bound", (f"{POLICY_LOSS}.clip_high=0.3",)),
    Fault(
        "a micro-batch of 7",
        "does not divide the 32 responses",
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=7",),
    ),
    Fault("no column data_source", "has no column 'data_source'", OWN_DATA, data(lambda t: t.drop(["data_source"]))),
    Fault("no column reward_model", "has no column 'reward_model'", OWN_DATA, data(lambda t: t.drop(["reward_model"]))),
    Fault("a parquet without rows", "has no rows", OWN_DATA, data(lambda t: t.slice(0, 0))),
    Fault("a parquet of 1 row", "have 1 row", OWN_DATA, data(lambda t: t.slice(0, 1))),
    Fault("a file that is not parquet", "cannot be read", OWN_DATA, write("train.parquet", "text")),
    Fault("prompts that are too long", "prompts have more than", ("data.max_prompt_length=8",)),
    Fault("reward raises", "raises KeyError: 'gold'", reward="return extra_info['gold']"),
    Fault("reward returns text", "returns 'good'", reward="return 'good'"),
    Fault("reward returns NaN", "returns nan", reward="return float('nan')"),
    Fault("kill main_ppo", "was killed", victim="verl.trainer.main_ppo"),
    Fault("kill an actor", "killed from outside", victim="ray::WorkerDict"),
    Fault("kill vLLM", "vLLM's engine died", victim="VLLM::EngineCore"),
    Fault("SIGTERM", "Stopped by SIGTERM", victim="sspo_verl.tools.quickstart", hit=signal.SIGTERM),
)


@dataclass(frozen=True)
class Outcome:
    fault: Fault
    seconds: float | None  # None: not reported
    exit_code: int | None
    lost: str
    left: int  # processes left over


def run(fault: Fault, runs: Path) -> Outcome:
    folder = runs / re.sub(r"\W+", "-", fault.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "start").symlink_to((runs / "start").resolve())
    fault.prepare(folder / "sspo")
    overrides = [each.format(run=folder / "sspo") for each in (*STEPS, *fault.overrides)]
    if fault.reward:
        arguments = "data_source, solution_str, ground_truth, extra_info=None"
        (folder / "reward.py").write_text(f"def compute_score({arguments}):\n    {fault.reward}\n")
        overrides.append(f"reward.custom_reward_function.path={folder}/reward.py")
    log = folder / "quickstart.log"
    command = [sys.executable, "-m", "sspo_verl.tools.quickstart.command", "--runs", str(folder), *overrides]
    began = time.monotonic()
    with log.open("wb") as file:
        process = psutil.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    limit = began + SECONDS["real" if fault.is_real else "quick"]
    since = _hit(fault, process, RunDir(folder / "sspo"), limit) if fault.is_real else began
    seconds = None
    while seconds is None and time.monotonic() < limit:
        ended = process.poll() is not None
        if re.search(fault.said, log.read_text(errors="replace"), re.DOTALL):
            seconds = time.monotonic() - since
        elif ended:
            break
        time.sleep(0.1)
    below = process.children(recursive=True) if process.is_running() else []
    ends = fault.is_real or "\nError: " in log.read_text(errors="replace")
    exit_code = _end(process, 60.0 if ends else 0.0)
    time.sleep(3 if fault.is_real else 0)
    return Outcome(fault, seconds, exit_code, _lost(RunDir(folder / "sspo")), sum(each.is_running() for each in below))


def _hit(fault: Fault, process: psutil.Popen, run: RunDir, limit: float) -> float:
    """Send the signal once step 3 is done; return the time."""
    while process.poll() is None and max(run.rows(), default=0) < 3 and time.monotonic() < limit:
        time.sleep(0.5)
    below = [process, *process.children(recursive=True)] if process.poll() is None else []
    for each in below:
        if fault.victim in " ".join(each.cmdline()):
            each.send_signal(fault.hit)
            break
    return time.monotonic()


def _end(process: psutil.Popen, seconds: float) -> int | None:
    """The run's exit code. A run that continues after its fault was reported is interrupted, and has none."""
    try:
        return process.wait(timeout=seconds)
    except psutil.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        return None


def _lost(run: RunDir) -> str:
    """Steps that the next start will repeat."""
    done = max(run.rows(), default=0)
    kept = run.last_checkpoint()
    return "nothing" if done <= kept else f"{done - kept} steps"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of faults")
    parser.add_argument("--all", action="store_true", help="also those in a real run")
    parser.add_argument("--runs", type=Path, default=Path("runs/faults"))
    options = parser.parse_args()
    chosen = [each for each in FAULTS if each.name in options.names or (not options.names and not each.is_real)]
    chosen = list(FAULTS) if options.all else chosen
    options.runs.mkdir(parents=True, exist_ok=True)
    runs = options.runs.resolve()
    start.read_if_current(runs / "start") or start.make(runs / "start")
    print("| fault | seconds to the message | exit code | lost | left over |\n|---|---|---|---|---|", flush=True)
    unnoticed = 0
    for fault in chosen:
        found = run(fault, runs)
        unnoticed += found.seconds is None
        seconds = "not said" if found.seconds is None else f"{found.seconds:.1f}"
        code = "continued" if found.exit_code is None else found.exit_code
        print(f"| {fault.name} | {seconds} | {code} | {found.lost} | {found.left or 'none'} |", flush=True)
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())

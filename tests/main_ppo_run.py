"""One run of main_ppo in a process of its own: `python main_ppo_run.py JOB.json`.

Child, which ends all that Ray started, ends everything below its process. So of two runs at a time, each needs one.
JOB.json: recipe, overrides, variables (of the environment), run (its folder, as in the quickstart), minutes.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from sspo_verl.fresh_process import CPU_ENVIRONMENT, QUIET_ENVIRONMENT, short_directory
from sspo_verl.quickstart.processes import Child
from sspo_verl.quickstart.run_dir import RunDir
from sspo_verl.quickstart.training import LOG_ENVIRONMENT

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def main(job: dict) -> int:
    run = RunDir(Path(job["run"]))
    attempt = run.new_attempt()
    ray_dir = short_directory()
    environment = {
        **os.environ,
        **QUIET_ENVIRONMENT,
        **LOG_ENVIRONMENT,
        **CPU_ENVIRONMENT,
        "SSPO_RAY_DIR": ray_dir,
        "VERL_FILE_LOGGER_PATH": str(attempt / "metrics.jsonl"),
        "HF_DATASETS_CACHE": str(run.cache),
        **job["variables"],
    }
    recipe = ["--config-path", str(RECIPES), "--config-name", job["recipe"]]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *recipe, *job["overrides"]]
    child = Child(command, environment, attempt / "verl.log")
    try:
        deadline = time.monotonic() + 60 * job["minutes"]
        while (code := child.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.5)
        return 124 if code is None else code
    finally:
        child.stop()
        shutil.rmtree(ray_dir, ignore_errors=True)


def _stopped(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stopped)
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))

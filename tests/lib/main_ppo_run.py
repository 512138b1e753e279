"""One run of main_ppo in a process of its own: `python main_ppo_run.py JOB.json`.

Child, which ends all that Ray started, ends everything below its process. So of two runs at a time, each needs one.
JOB.json: recipe, overrides, variables (of the environment), run (its folder, as in the quickstart), minutes.
"""

import json
import signal
import sys
from pathlib import Path

from sspo_verl.tools.runs.folder import RunDir
from sspo_verl.tools.runs.main_ppo import MainPPO, started

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def main(job: dict) -> int:
    run = RunDir(Path(job["run"]))
    training = MainPPO(RECIPES, job["recipe"], job["overrides"], "cpu", job["variables"])
    with started(training, run) as attempt:
        code = attempt.wait(60 * job["minutes"])
        return 124 if code is None else code


def _stopped(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stopped)
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))

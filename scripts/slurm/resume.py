"""Prepares the start of a job: makes it resume from a complete checkpoint, and deletes those left by earlier starts.

    resume.py CHECKPOINTS TOTAL_STEPS KEEP CONTENTS...

TOTAL_STEPS, KEEP: trainer.total_training_steps and max_actor_ckpt_to_keep; empty if they are null. CONTENTS:
checkpoint.load_contents. Exit code 9: the run is already at its last step.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sspo_verl.plugin import checkpoints

FINISHED = 9


def main(folder: str, total_steps: str, keep: str, *contents: str) -> int:
    best = checkpoints.repair(Path(folder), contents, say)
    checkpoints.prune(Path(folder), int(keep or 0), contents, say)
    if best is not None and total_steps and best.step >= int(total_steps):
        say(f"step {best.step} of {total_steps} is done: nothing is left to train")
        return FINISHED
    return 0


def say(line: str) -> None:
    print(f"train.sbatch: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

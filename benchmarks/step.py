"""Time of a step of SSPO relative to GRPO's: benchmarks/step.py [--start DIR] [--steps N] [key=value ...]

One run of verl's main_ppo on recipes/quickstart.yaml in which the algorithm changes from step to step
(benchmarks/alternating.py): verl's own GRPO, SSPO with its defaults, SSPO without its diagnostics. The task, the model
and the sampler are the same for all three, and they run at the same time. Prints the medians of verl's own timing
metrics, and the start-up's share of the run.

--start: the starting model and the data, as written by bash scripts/quickstart.sh to runs/quickstart/start.
Further arguments are overrides of the recipe.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from alternating import ACTOR_CPU, ALGORITHMS, DRIVER_CPU, WALL, of_step

from sspo_verl.tools.quickstart.ask import main_ppo
from sspo_verl.tools.quickstart.run import Run
from sspo_verl.tools.runs.main_ppo import started
from sspo_verl.tools.runs.platform import choose_platform
from sspo_verl.tools.runs.verl_log import LEARNING, LogReader

HERE = Path(__file__).parent
TARGET = 1.02
STALL_SECONDS = 300
NOT_COUNTED = len(ALGORITHMS)  # the first step of each is slow
NOT_OURS = ("gen", "old_log_prob", "update_weights")  # stages that do not depend on the algorithm
PART = "stages with a part of SSPO"
# Like algorithm=sspo by default: no dumps. Nothing between the steps.
OVERRIDES = (
    "trainer.rollout_data_dir=null",
    "actor_rollout_ref.actor.policy_loss.dump_segments=0",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
)


def run(folder: Path, start: Path, steps: int, overrides: list[str]) -> tuple[list[dict], dict[str, float]]:
    """(metrics of each step, {phase of the run: second at which it began}); "end" is a phase."""
    chosen = (*OVERRIDES, f"trainer.total_training_steps={steps}", *overrides)
    job = main_ppo(Run(folder), start.resolve(), "sspo", choose_platform(), chosen)
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    ours = {"PYTHONPATH": path, "VERL_USE_EXTERNAL_MODULES": "alternating"}
    job = dataclasses.replace(job, variables={**job.variables, **ours})
    began = grew = time.monotonic()
    with started(job, Run(folder)) as attempt:
        reader, size = LogReader(attempt.log), 0
        phases = {reader.phase: 0.0}
        while (exit_code := attempt.child.poll()) is None:
            time.sleep(0.1)
            reader.poll()
            phases.setdefault(reader.phase, time.monotonic() - began)
            if reader.size != size:
                size, grew = reader.size, time.monotonic()
            elif time.monotonic() - grew > STALL_SECONDS:
                break
    if exit_code != 0:
        raise SystemExit(f"verl ended with exit code {exit_code}:\n{reader.path.read_text()[-4000:]}")
    phases["end"] = time.monotonic() - began
    rows = [json.loads(line) for line in attempt.metrics.read_text().splitlines()]
    return [row["data"] | {"step": row["step"]} for row in rows if row["step"] > 0], phases


def stages(rows: list[dict]) -> dict[str, list[dict[str, float]]]:
    """Per algorithm, the seconds of each stage in each counted step."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ALGORITHMS}
    for row in rows:
        if row["step"] > NOT_COUNTED:
            timing = {key.removeprefix("timing_s/"): value for key, value in row.items() if key.startswith("timing_s/")}
            timing["inside step()"] = row[WALL]
            timing[PART] = timing["step"] - sum(timing.get(name, 0.0) for name in NOT_OURS)
            timing["CPU of update_actor"], timing["CPU of the driver"] = row[ACTOR_CPU], row[DRIVER_CPU]
            found[of_step(row["step"])].append(timing)
    return found


def table(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    names = sorted({name for rows in found.values() for row in rows for name in row})
    median = {a: {n: statistics.median(row.get(n, 0.0) for row in found[a]) for n in names} for a in found}
    print("| stage, median s | " + " | ".join(ALGORITHMS) + " | sspo / grpo |\n|---|" + "---|" * (len(ALGORITHMS) + 1))
    for name in sorted(names, key=lambda name: -median["grpo"][name]):
        cells = [f"{median[algorithm][name]:.3f}" for algorithm in ALGORITHMS]
        print(f"| {name} | " + " | ".join(cells) + f" | {median['sspo'][name] / median['grpo'][name]:.3f} |")
    return median


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, default=Path("runs/quickstart/start"))
    parser.add_argument("--steps", type=int, default=57)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if not (arguments.start / "model").is_dir():
        parser.error(f"{arguments.start} has no starting model; bash scripts/quickstart.sh makes one")
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("verl", "torch", "ray"))
    print(f"Python {platform.python_version()}, {versions}; {os.cpu_count()} cores; {arguments.steps} steps, the first "
          f"{NOT_COUNTED} not counted; {' '.join(arguments.overrides) or 'no overrides'}\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        rows, phases = run(Path(folder), arguments.start, arguments.steps, arguments.overrides)
    found = stages(rows)
    median = table(found)
    steps = {name: [row["inside step()"] for row in found[name]] for name in ALGORITHMS}
    for name, values in steps.items():
        print(f"\n{name}: {len(values)} steps of {min(values):.2f} to {max(values):.2f} s", end="")
    print("\n\nWhat SSPO adds to a step of GRPO, and the ratio that makes:")
    for kind, parts in (
        ("wall, complete steps", ("step",)),
        ("wall, stages in which it has a part", (PART,)),
        ("CPU of the actor's update and of the driver", ("CPU of update_actor", "CPU of the driver")),
    ):
        added = sum(median["sspo"][part] - median["grpo"][part] for part in parts)
        ratio = 1 + added / median["grpo"]["step"]
        verdict = "reached" if ratio <= TARGET else "MISSED"
        print(f"  {kind}: {1000 * added:+.0f} ms, {ratio:.3f}, target {TARGET}: {verdict}")
    first, end = phases[LEARNING], phases["end"]
    print(f"\nStart-up {first:.0f} s of {end:.0f} s ({100 * first / end:.0f} %):", end="")
    for name, following in itertools.pairwise(phases):
        print(f" {name} {phases[following] - phases[name]:.0f} s;", end="")
    print()

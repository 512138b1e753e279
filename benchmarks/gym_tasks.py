"""Tasks of reasoning-gym, their answers and verifiers: python benchmarks/gym_tasks.py [TASK ...] [--rows 50]

Prints a Markdown table. Each task's rows are generated like in `sspo data reasoning-gym`, and scored by the reward as
verl calls it:

    prompt      median number of characters
    right       rows whose own answer, in its tags at the end of a response, scores 1.0; mean score of the others
    others'     answers of other rows, if the text differs: how many do not get a full score. A task with several
                right answers, or with few possible ones that are all written out, may accept one
    cut, none   the same for the answer without its last character, and for a text that is not an answer
    lost        verdicts that timed out or failed; all of them score 0
    segments    in a worked solution, if the task's metadata has one: median number of pieces between line breaks
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet

from sspo_verl.reward.entries import from_json
from sspo_verl.reward.reasoning_gym import close, compute_score
from sspo_verl.tools.data import gym

TASKS = (
    *("chain_sum", "gsm_symbolic", "complex_arithmetic", "polynomial_equations", "fraction_simplification"),
    *("knights_knaves", "syllogism", "circuit_logic", "course_schedule", "shortest_path"),
    *("mini_sudoku", "countdown", "n_queens", "tower_of_hanoi", "arc_1d", "bf", "word_sorting", "spell_backward"),
    *("rotate_matrix", "family_relationships"),
)
WORKED = ("answer_cot",)
THREADS = 4


def rows_of(tasks: Sequence[str], count: int) -> dict[str, list[dict]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        gym.make({task: {} for task in tasks}, {"train": count, "test": 1}, seed=1, asked="tag", out=out, force=False)
        rows = pyarrow.parquet.read_table(out / "train.parquet").to_pylist()
    return {task: [row for row in rows if row["extra_info"]["task"] == task] for task in tasks}


def score(row: dict, answer: str) -> dict[str, float]:
    response = f"We look at it.\nSo that is it.\n<answer>{answer}</answer>"
    return compute_score(row["data_source"], response, row["reward_model"]["ground_truth"], row["extra_info"])


def segments(row: dict) -> int | None:
    metadata = from_json(row["extra_info"]["metadata"])
    for name in WORKED:
        if isinstance(metadata.get(name), str):
            return sum(bool(line.strip()) for line in metadata[name].split("\n"))
    return None


def line(task: str, rows: list[dict]) -> str:
    golds = [row["reward_model"]["ground_truth"] for row in rows]
    next_golds = [*golds[1:], golds[0]]
    with ThreadPoolExecutor(THREADS) as threads:
        own = list(threads.map(score, rows, golds))
        unlike = [(row, other) for row, gold, other in zip(rows, golds, next_golds, strict=True) if gold != other]
        others = list(threads.map(lambda pair: score(*pair), unlike))
        cut = list(threads.map(score, rows, [gold[:-1] for gold in golds]))
        none = list(threads.map(score, rows, ["I do not know"] * len(rows)))
    right = sum(each["score"] == 1 for each in own)
    rest = [each["score"] for each in own if each["score"] < 1]
    lost = sum(each["timeout"] + each["failed"] for each in (*own, *others, *cut, *none))
    worked = [found for row in rows if (found := segments(row)) is not None]

    def rejected(found: list[dict[str, float]]) -> str:
        return f"{sum(each['acc'] == 0 for each in found)} of {len(found)}"

    prompt = statistics.median(len(row["prompt"][-1]["content"]) for row in rows)
    cells = [f"`{task}`", rows[0]["ability"], f"{prompt:,.0f}", str(len(rows))]
    cells += [f"{right} of {len(rows)}" + (f" ({statistics.mean(rest):.2f})" if rest else "")]
    cells += [rejected(others), rejected(cut), rejected(none), f"{lost:.0f}"]
    return f"| {' | '.join([*cells, f'{statistics.median(worked):g}' if worked else ''])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", default=TASKS)
    parser.add_argument("--rows", type=int, default=50)
    arguments = parser.parse_args()
    print("| task | kind | prompt | rows | right | others' | cut | none | lost | segments |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    try:
        for task, rows in rows_of(arguments.tasks, arguments.rows).items():
            print(line(task, rows), flush=True)
    finally:
        close()


if __name__ == "__main__":
    main()

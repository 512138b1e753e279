"""Generates reasoning-gym entries in a process with a fixed hash seed: started by `gym` with a job on stdin."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sspo_verl.reward.entries import to_json
from sspo_verl.reward.task_judge import gold_of
from sspo_verl.tools.data.gym import SPLITS, category

# A task with few different prompts yields more and more duplicates: after this many without a new one, it is exhausted.
IN_VAIN = 200
NO_ANSWER = "zq"


def seed_of(seed: int, task: str, split: str) -> int:
    """Base seed of a split; an entry's seed is this plus its index. Adjacent seeds would share entries, even across
    splits."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task}/{split}".encode()).digest()[:4], "big") // 2


def generate(job: dict[str, Any]) -> dict[str, Any]:
    """{split: rows}, with all tasks mixed; skipped: {split: {task: number of duplicate prompts}}; version."""
    found: dict[str, Any] = {split: [] for split in SPLITS}
    found["skipped"] = {split: {} for split in SPLITS}
    for task, settings in job["tasks"].items():
        seen: set[str] = set()  # the test split is made first, so that training has none of its prompts
        for split in SPLITS:
            rows, skipped = entries(task, settings, job["rows"][split], seed_of(job["seed"], task, split), seen)
            found[split] += rows
            found["skipped"][split][task] = skipped
    for split in SPLITS:
        random.Random(f"{job['seed']}/{split}").shuffle(found[split])
    return found | {"version": version("reasoning-gym")}


def entries(
    task: str, settings: dict[str, Any], wanted: int, seed: int, seen: set[str]
) -> tuple[list[dict[str, Any]], int]:
    """(`wanted` entries of one task, number of duplicates). Skips prompts in `seen`, and adds the new ones to it."""
    import numpy
    from reasoning_gym import create_dataset

    if not wanted:
        return [], 0
    try:
        dataset = create_dataset(task, seed=seed, size=10 * wanted + IN_VAIN, **settings)
    except Exception as error:  # tasks raise anything for bad settings: assertions, KeyError, ...
        raise ValueError(f"{task}: its settings {settings} are refused: {error or type(error).__name__}") from error
    rows: list[dict[str, Any]] = []
    config = to_json(settings)
    skipped = in_vain = 0
    for index in range(len(dataset)):
        if len(rows) == wanted or in_vain == IN_VAIN:
            break
        random.seed(seed + index)  # for tasks that use the global generators
        numpy.random.seed((seed + index) % 2**32)
        try:
            entry = dataset[index]
            row = {
                "task": task,
                "category": category(type(dataset)),
                "config": config,
                "seed": seed,
                "entry": index,
                "question": entry["question"],
                "answer": "" if entry["answer"] is None else entry["answer"],
                "metadata": to_json(entry["metadata"]),
            }
            if entry["question"] in seen:
                skipped, in_vain = skipped + 1, in_vain + 1
                continue
            gold_of(row["answer"], row)  # raises if the reward could not read it
            _refuse_what_pays_for_nothing(dataset, entry)
        except Exception as error:
            raise ValueError(f"{task}: entry {index} of seed {seed}: {error or type(error).__name__}") from error
        in_vain = 0
        seen.add(entry["question"])
        rows.append(row)
    if len(rows) < wanted:
        raise ValueError(
            f"{task} does not have {wanted} distinct prompts with these settings; only {len(rows)} new ones were "
            "found. Ask for fewer (--rows, --test-rows), or widen its settings (--set)."
        )
    return rows, skipped


def _refuse_what_pays_for_nothing(dataset: Any, entry: dict[str, Any]) -> None:
    """Raise ValueError if the verifier gives a full score to a text that is not an answer."""
    try:
        score = dataset.score_answer(NO_ANSWER, entry)
    except Exception:  # it cannot read it, as it should
        return
    if score >= 1:
        raise ValueError(
            f"the verifier of reasoning-gym gives {NO_ANSWER!r} a full score, so that nothing could be learned from "
            "it. Leave this task out"
        )


def main(result: str) -> None:
    try:
        found = generate(json.load(sys.stdin))
    except ValueError as error:
        found = {"error": str(error)}
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])

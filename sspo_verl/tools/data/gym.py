"""`sspo data reasoning-gym`: rows of reasoning-gym tasks, each with the entry that its verifier needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sspo_verl.extras import require
from sspo_verl.tools.data.write import refuse_existing, write_all

PREFIX = "reasoning_gym_"  # of data_source: verl validates each task separately
SYSTEM = "You are a helpful assistant."
ASKS = {  # by the reward's setting `answer`
    "tag": "Please reason step by step, and put your final answer between <answer> and </answer>.",
    "boxed": r"Please reason step by step, and put your final answer within \boxed{}.",
    "none": "",
}
SPLITS = ("test", "train")
LEFT_OUT = ("composite",)  # made of other tasks, which can be named directly


def task_names() -> list[str]:
    require("gym", "sspo data reasoning-gym")
    from reasoning_gym.factory import DATASETS

    return sorted(name for name in DATASETS if name not in LEFT_OUT)


def listing() -> dict[str, list[str]]:
    """{category: tasks}."""
    names = task_names()
    from reasoning_gym.factory import DATASETS

    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(category(DATASETS[name][0]), []).append(name)
    return dict(sorted(found.items()))


def category(dataset: type) -> str:
    """The package of a task: algebra, games, logic, ..."""
    parts = dataset.__module__.split(".")
    return parts[1] if len(parts) > 2 else "other"


def check_tasks(tasks: Sequence[str], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{task: its settings}. settings: TASK.KEY=VALUE. Raises ValueError, suggesting similar names for unknown ones."""
    names = task_names()
    from reasoning_gym.factory import DATASETS

    for task in tasks:
        if task not in names:
            raise ValueError(f"reasoning-gym has no task {task!r}.{_near(task, names)} --list shows them all.")
    found: dict[str, dict[str, Any]] = {task: {} for task in tasks}
    for setting in settings:
        where, equals, value = setting.partition("=")
        task, _, key = where.partition(".")
        if not equals or not key:
            raise ValueError(f"--set {setting}: write TASK.KEY=VALUE, as in --set chain_sum.max_terms=3.")
        if task not in found:
            raise ValueError(f"--set {setting}: {task!r} is not among the tasks: {', '.join(found)}.")
        keys = [name for name in DATASETS[task][1].__dataclass_fields__ if name not in ("seed", "size")]
        if key not in keys:
            near = _near(key, keys)
            raise ValueError(f"--set {setting}: {task} has no setting {key!r}.{near} It has {', '.join(keys)}.")
        try:
            found[task][key] = json.loads(value)
        except ValueError:
            found[task][key] = value
    return found


def _near(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name.lower().replace("-", "_"), names, 3, 0.5)
    near += [other for other in names if name.lower() in other and other not in near]
    return f" Did you mean {' or '.join(near[:3])}?" if near else ""


def make(
    tasks: Mapping[str, Mapping[str, Any]], rows: Mapping[str, int], seed: int, asked: str, out: Path, force: bool
) -> dict[str, Any]:
    """Write OUT/train.parquet and OUT/test.parquet; return the report.

    tasks: {task: its settings}. rows: per task, by split. asked: a key of ASKS. The same arguments give the same bytes.

    Raises ValueError, naming the task, for a setting that it does not accept or more rows than it can generate.
    """
    names = [f"{split}.parquet" for split in SPLITS]
    refuse_existing([out / name for name in names], force)
    found = _generate({"tasks": dict(tasks), "rows": dict(rows), "seed": seed})

    def write(folder: Path) -> None:
        import pyarrow.parquet as pq

        for split in SPLITS:
            pq.write_table(_table(found[split], split, asked), folder / f"{split}.parquet")

    paths = dict(zip(SPLITS, write_all(out, names, write, force), strict=True))
    sets = {
        f"{PREFIX}{task} ({split})": {
            "from": ["made"],
            "read": sum(row["task"] == task for row in found[split]) + found["skipped"][split][task],
            "duplicates": {"n": found["skipped"][split][task], "with_another_answer": 0, "first": []},
            "written": sum(row["task"] == task for row in found[split]),
            "file": str(paths[split]),
        }
        for task in tasks
        for split in SPLITS
    }
    note = f"Score them with {REWARD}" + (f" and reward_kwargs.answer={asked}." if asked == "boxed" else ".")
    report = {"command": "reasoning-gym", "template": None, "against": [], "sets": sets, "notes": [note]}
    return report | {"reasoning_gym": found["version"], "seed": seed}


REWARD = "reward.custom_reward_function.path=pkg://sspo_verl.reward.reasoning_gym"


def _generate(job: dict[str, Any]) -> dict[str, Any]:
    """Generate in a separate process: some tasks use the order of a set, which depends on the process's hash seed."""
    with tempfile.TemporaryDirectory(prefix="sspo-gym-") as folder:
        result = Path(folder) / "result.json"
        done = subprocess.run(
            [sys.executable, "-m", "sspo_verl.tools.data.gym_generate", str(result)],
            input=json.dumps(job),
            text=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        if not result.exists():
            raise ValueError(f"reasoning-gym's process ended with exit code {done.returncode}: {done.stderr[-2000:]}")
        found = json.loads(result.read_text())
    if "error" in found:
        raise ValueError(found["error"])
    return found


def _table(rows: Sequence[dict[str, Any]], split: str, asked: str):
    """A pyarrow table with the same schema for all tasks."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    extra = {"split": text, "index": number, "asked": text, "task": text, "config": text, "seed": number}
    extra |= {"entry": number, "question": text, "metadata": text}
    schema = pa.schema(
        {
            "data_source": text,
            "prompt": pa.list_(pa.struct({"role": text, "content": text})),
            "ability": text,
            "reward_model": pa.struct({"style": text, "ground_truth": text}),
            "extra_info": pa.struct(extra),
        }
    )
    return pa.Table.from_pylist([_row(row, index, split, asked) for index, row in enumerate(rows)], schema=schema)


def _row(row: dict[str, Any], index: int, split: str, asked: str) -> dict[str, Any]:
    question = row["question"].rstrip() + (f"\n\n{ASKS[asked]}" if ASKS[asked] else "")
    kept = {name: row[name] for name in ("task", "config", "seed", "entry", "question", "metadata")}
    return {
        "data_source": PREFIX + row["task"],
        "prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
        "ability": row["category"],
        "reward_model": {"style": "rule", "ground_truth": row["answer"]},
        "extra_info": {"split": split, "index": index, "asked": asked, **kept},
    }

"""The problems of a folder: one parquet file per benchmark, in verl's layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Index = int | str  # extra_info.index: a number, or a text such as a UUID

TRAIN = "train"  # train.parquet is not a benchmark, unless requested by name


@dataclass(frozen=True)
class Problem:
    set: str  # the file's name without .parquet
    index: Index
    data_source: str
    messages: list[dict[str, str]]
    gold: str
    template: str | None  # extra_info.template, None if the data does not have it


def find_sets(folder: Path, asked: list[str] | None) -> dict[str, Path]:
    """{name: file} of the requested benchmarks, in the requested order; by default all except train.parquet."""
    if not folder.is_dir():
        raise ValueError(f"--data: {folder} is not a folder. `sspo data eval --out {folder}` makes one.")
    there = {file.stem: file for file in sorted(folder.glob("*.parquet"))}
    names = asked if asked is not None else [name for name in there if name != TRAIN]
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"--sets: {folder} has no {', '.join(missing)}. It has: {', '.join(there) or 'no parquet'}.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"--sets names {', '.join(twice)} twice.")
    if not names:
        raise ValueError(f"--data: {folder} has no parquet file of a benchmark (NAME.parquet, one per benchmark).")
    return {name: there[name] for name in names}


def read(name: str, path: Path, limit: int | None = None) -> list[Problem]:
    """The first `limit` problems of a file. Raises ValueError, naming the file and the row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is not a parquet file that can be read: {error}") from error
    problems = [_problem(name, path, number, row) for number, row in enumerate(rows[:limit])]
    if not problems:
        raise ValueError(f"{path} has no rows.")
    seen: set[Index] = set()
    for number, problem in enumerate(problems):
        if problem.index in seen:
            raise ValueError(f"{path}, row {number + 1}: extra_info.index {problem.index!r} occurs twice.")
        seen.add(problem.index)
    return problems


def _problem(name: str, path: Path, number: int, row: dict[str, Any]) -> Problem:
    def bad(what: str) -> ValueError:
        return ValueError(f"{path}, row {number + 1}: {what}. Data in verl's layout is what `sspo data eval` writes.")

    messages, reward = row.get("prompt"), row.get("reward_model")
    extra = row.get("extra_info") or {}
    if not isinstance(messages, list) or not messages:
        raise bad("no column `prompt` with a list of messages")
    if not all(isinstance(m, dict) and isinstance(m.get("content"), str) and m.get("role") for m in messages):
        raise bad("`prompt` is not a list of {role, content}")
    if not isinstance(reward, dict) or not isinstance(reward.get("ground_truth"), str):
        raise bad("no string reward_model.ground_truth")
    if not isinstance(source := row.get("data_source"), str):
        raise bad("no string data_source")
    try:
        index = _index(extra.get("index"), number)
    except ValueError as error:
        raise bad(str(error)) from None
    return Problem(
        set=name,
        index=index,
        data_source=source,
        messages=[{"role": m["role"], "content": m["content"]} for m in messages],
        gold=reward["ground_truth"],
        template=extra.get("template"),
    )


def _index(value: Any, number: int) -> Index:
    """extra_info.index, which identifies a row; the row's number if missing (None, or NaN from pandas)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return number
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (int, str)) and not isinstance(value, bool) and value != "":
        return int(value) if str(value).isdecimal() else value
    raise ValueError(f"extra_info.index is {value!r:.80}, which is neither a number nor a text")

"""verl's metrics files: reading, merging and writing them.

verl's `file` logger writes one line per step: {"step": 3, "data": {name: value, ...}}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sspo_verl.tools import files

Row = dict[str, float]
Rows = dict[int, Row]

LINES_NAMED = 5  # of the unreadable lines of a file, so many are named
NOT_FINITE = float("nan")  # in a row: what verl wrote as null, which was NaN or infinite


class Reading(NamedTuple):
    """The rows of a file or a run, and messages on what could not be read of it."""

    rows: Rows
    problems: list[str]


def read(path: Path) -> Reading:
    """The rows of one file by step. A file that is not there has none: a run that has just begun.

    A value that is not finite (verl writes NaN and infinity as null) is NaN in its row; any other that is not a number
    is left out.
    """
    rows: Rows = {}
    broken: list[int] = []
    problems: list[str] = []
    if not path.exists():
        return Reading(rows, problems)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = text.removesuffix("\n").split("\n")  # splitlines() would also cut at U+2028 and others in a name
    for number, line in enumerate(lines, 1):
        entry = _entry(line)
        if entry is not None:
            step, row = entry
            rows.setdefault(step, {}).update(row)
        elif number == len(lines) and not text.endswith("\n"):
            problems.append(f"{path}: the last line ({number}) is written half and was left out")
        elif line.strip():
            broken.append(number)
    if broken:
        named = ", ".join(map(str, broken[:LINES_NAMED])) + (", ..." if len(broken) > LINES_NAMED else "")
        what, were = ("line", "was") if len(broken) == 1 else ("lines", "were")
        problems.append(f"{path}: {len(broken)} unreadable {what} ({named}) {were} left out")
    return Reading(rows, problems)


def _entry(line: str) -> tuple[int, Row] | None:
    """A line's step and numbers; None if it is not one of verl's."""
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    step, data = entry.get("step"), entry.get("data")
    if not isinstance(step, int) or isinstance(step, bool) or not isinstance(data, dict):
        return None
    return step, {name: number for name, value in data.items() if (number := _number(value)) is not None}


def _number(value: object) -> float | None:
    if value is None or (isinstance(value, str) and value.lower().lstrip("+-") in ("nan", "inf", "infinity")):
        return NOT_FINITE
    if not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else NOT_FINITE


def is_metrics_file(path: Path) -> bool:
    """Is this one of verl's metrics files? Its first line decides (dumps of responses are JSONL too)."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return _entry(file.readline()) is not None


def merge(readings: Iterable[Reading]) -> Reading:
    """One run out of its attempts, in order; where two have the same number of the same step, the later one wins.

    Name by name, not row by row: a resumed attempt begins with a row that holds nothing but the validation.
    """
    merged: Rows = {}
    problems: list[str] = []
    for reading in readings:
        problems += reading.problems
        for step, row in reading.rows.items():
            merged.setdefault(step, {}).update(row)
    return Reading(dict(sorted(merged.items())), problems)


def write(rows: Rows, path: Path) -> None:
    """In verl's own format, so that what reads one attempt reads the complete run. Atomic."""
    lines = (
        {"step": step, "data": {name: value if math.isfinite(value) else None for name, value in row.items()}}
        for step, row in rows.items()
    )
    files.write(path, "".join(json.dumps(line) + "\n" for line in lines))

"""Reads, merges and writes verl's metrics files.

verl's `file` logger writes one line per step: {"step": 3, "data": {name: value, ...}}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sspo_verl.tools import files
from sspo_verl.tools.steps import ranges

Row = dict[str, float]
Rows = dict[int, Row]

LINES_NAMED = 5  # number of unreadable lines of a file that are named; also of metrics that are not numbers
FIRST_LINES = 20  # a verl metrics line among this many first lines makes a file a metrics file
LONGEST_LINE = 2**22  # characters of a line that are considered for that
NOT_FINITE = float("nan")  # in a row: what verl wrote as null (NaN or infinite), and values that are too large
LARGEST = 1e300  # beyond this, sums and percentages overflow
STEPS_END = 2**53  # no step reaches this; floats are exact integers up to here
# Prefixes of what a training step measures: a row without any is only a validation.
_OF_TRAINING = ("actor/", "critic/", "training/")
_KINDS = {str: "text", list: "a list", dict: "a mapping"}


class Reading(NamedTuple):
    """Rows of a file or a run, and messages on what could not be read."""

    rows: Rows
    problems: list[str]


def read(path: Path) -> Reading:
    """Read the rows of one file by step. A missing file has none: the run has just begun.

    A value that is not finite (verl writes NaN and infinity as null), or too large for a float, is NaN in its row;
    other values that are not numbers are dropped. If the file goes back to an earlier step, the later steps before that
    are dropped as in `merge`: it contains consecutive attempts at a run.
    """
    if not path.exists():
        return Reading({}, [])
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = text.removesuffix("\n").split("\n")  # splitlines() would also split at U+2028 and others in a name
    parts: list[tuple[int, Rows]] = []  # (first line, rows)
    problems: list[str] = []
    broken: list[int] = []
    faults: list[str] = []
    no_numbers: dict[str, list[object]] = {}
    seen: set[int] = set()
    last_step = 0
    for number, line in enumerate(lines, 1):
        entry = parse(line)
        if isinstance(entry, Entry):
            step, row, others = entry
            for name, value in others.items():
                no_numbers.setdefault(name, []).append(value)
            if not parts or (step < last_step and step in seen):
                parts.append((number, {}))
            seen.add(step)
            parts[-1][1].setdefault(step, {}).update(row)
            last_step = step
        elif not line.strip():
            continue
        elif number == len(lines) and not text.endswith("\n"):
            problems.append(f"{path}: the last line ({number}) is incomplete and was left out")
        else:
            broken.append(number)
            if entry:
                faults.append(f"line {number}: {entry}")
    if broken:
        named = ", ".join(map(str, broken[:LINES_NAMED])) + (", ..." if len(broken) > LINES_NAMED else "")
        what, were = ("line", "was") if len(broken) == 1 else ("lines", "were")
        problems.append(f"{path}: {len(broken)} unreadable {what} ({named}) {were} left out")
    if faults:
        more = f" and {len(faults) - LINES_NAMED} more" if len(faults) > LINES_NAMED else ""
        problems.append(f"{path}: {'; '.join(faults[:LINES_NAMED])}{more}")
    if no_numbers:
        problems.append(f"{path}: {_no_numbers(no_numbers)}")
    merged = merge((Reading(rows, []) for _, rows in parts), [f"{path}, line {begin} on" for begin, _ in parts])
    return Reading(merged.rows, problems + merged.problems)


def _no_numbers(found: dict[str, list[object]]) -> str:
    said = [
        f"{name} ({_KINDS.get(type(values[0]), 'no number')} at {len(values)} step{'s' * (len(values) > 1)})"
        for name, values in list(found.items())[:LINES_NAMED]
    ]
    more = f" and {len(found) - LINES_NAMED} more" if len(found) > LINES_NAMED else ""
    return f"values that are not numbers were left out: {', '.join(said)}{more}"


class Entry(NamedTuple):
    """A line: its step, its numbers, and the values that are not numbers."""

    step: int
    row: Row
    others: dict[str, object]


def parse(line: str) -> Entry | str | None:
    """Parse a line. If it is not one of verl's: what is wrong with its step or data, or None if it lacks either."""
    try:
        entry = json.loads(line, parse_int=_int)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not {"step", "data"} <= entry.keys():
        return None
    step, data = entry["step"], entry["data"]
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    if not isinstance(step, int) or isinstance(step, bool):
        return f"its step is {json.dumps(step)[: LINES_NAMED * 8]}, which is not a whole number"
    if abs(step) >= STEPS_END:
        return "its step is too large to be one"
    if not isinstance(data, dict):
        return "its data is not a mapping from names to numbers"
    values = {name: _number(value) for name, value in data.items()}
    row = {name: number for name, number in values.items() if number is not None}
    return Entry(step, row, {name: data[name] for name, number in values.items() if number is None})


def _int(digits: str) -> float:
    """Parse an integer, a very long one as a float (inf from hundreds of digits): int() refuses thousands of digits."""
    return int(digits) if len(digits) <= len(str(STEPS_END)) else float(digits)


def _number(value: object) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity")):
        return NOT_FINITE
    if not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < LARGEST else NOT_FINITE  # also for NaN


def first_lines(path: Path) -> Iterator[str]:
    """The first lines of a file, without blank ones, that decide what it is."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = (file.readline(LONGEST_LINE) for _ in range(FIRST_LINES))
        yield from (line for line in lines if line.strip())


def is_metrics_file(path: Path) -> bool:
    """Whether this is one of verl's metrics files, from its first lines (dumps of responses are also JSONL)."""
    return any(isinstance(parse(line), Entry) for line in first_lines(path))


def merge(readings: Iterable[Reading], names: Sequence[str] = ()) -> Reading:
    """Merge a run's attempts, in order; `names` are for the messages.

    An attempt resumes from a checkpoint: later steps of the previous attempt did not lead to it, and are dropped, with
    a message. At the step of the checkpoint the rows are merged metric by metric: a resumed attempt begins with a row
    that has only the validation. One that begins with a training step resumed from the step before.
    """
    attempts = list(readings)
    problems = [problem for reading in attempts for problem in reading.problems]
    histories: list[_History] = []
    for number, reading in enumerate(attempts):
        if reading.rows:
            name = names[number] if names else f"attempt {number + 1}"
            histories.append(_History.of(name, number, reading.rows, histories))
    if not histories:
        return Reading({}, problems)
    last = histories[-1]
    for earlier in histories[:-1]:
        left_out = [step for step in sorted(earlier.own) if earlier.number not in last.sources.get(step, ())]
        if left_out:
            later = next(h for h in histories if h.number > earlier.number and not h.holds(earlier, left_out))
            what, were = ("step", "was") if len(left_out) == 1 else ("steps", "were")
            went_on = f"resumed from step {later.resumed_from}" if later.resumed_from > 0 else "started over"
            problems.append(
                f"{earlier.name}: {len(left_out)} {what} ({ranges(left_out)}) {were} left out: {later.name} {went_on} "
                "and continued from there"
            )
    return Reading(dict(sorted(last.rows.items())), problems)


class _History(NamedTuple):
    """The run as of the end of one attempt. own: the attempt's rows; sources: the attempts that a row comes from."""

    name: str
    number: int
    resumed_from: int
    own: Rows
    rows: Rows
    sources: dict[int, set[int]]

    @classmethod
    def of(cls, name: str, number: int, own: Rows, earlier: Sequence[_History]) -> _History:
        first = min(own)
        trained = any(metric.startswith(_OF_TRAINING) for metric in own[first])
        resumed_from = first - trained
        # verl saves the checkpoint of a step before it writes the step's metrics. An attempt that never got that far is
        # not the one that was resumed, unless none did.
        before = next((h for h in reversed(earlier) if max(h.rows) >= resumed_from - 1), next(reversed(earlier), None))
        kept = [step for step in before.rows if step <= resumed_from] if before else []
        rows = {step: dict(before.rows[step]) for step in kept} if before else {}
        sources = {step: set(before.sources[step]) for step in kept} if before else {}
        for step, row in own.items():
            rows.setdefault(step, {}).update(row)
            sources.setdefault(step, set()).add(number)
        return cls(name, number, resumed_from, own, rows, sources)

    def holds(self, other: _History, steps: Iterable[int]) -> bool:
        return all(other.number in self.sources.get(step, ()) for step in steps)


def write(rows: Rows, path: Path) -> None:
    """Write the rows in verl's own format, so that whatever reads one attempt reads the complete run. Atomic."""
    lines = (
        {"step": step, "data": {name: value if math.isfinite(value) else None for name, value in row.items()}}
        for step, row in rows.items()
    )
    files.write(path, "".join(json.dumps(line) + "\n" for line in lines))

"""verl's metrics files: reading, merging the attempts of one run, and the few numbers that people look at.

verl's `file` logger writes one line per step, {"step": 3, "data": {name: value, ...}}, and empties the file when it
opens it. So every attempt at a run has a file of its own; merged, they are the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

Row = dict[str, float]
Rows = dict[int, Row]

# A series by the name that people see, and the names under which it may stand in verl's metrics.
SERIES = {
    "reward": ("critic/score/mean", "critic/rewards/mean"),
    "clip fraction": ("actor/pg_clipfrac",),
    "entropy": ("actor/entropy",),
    "segments per response": ("sspo/segments_per_response", "actor/sspo/segments_per_response"),
    "seconds per step": ("timing_s/step",),
    "seconds per validation": ("timing_s/testing",),
    "rollout difference": ("training/rollout_probs_diff_mean",),
}
ACCURACY_PREFIX = "val-core/"


def read(path: Path) -> Rows:
    """The rows of one file by step. A last line that is still being written is left out."""
    rows: Rows = {}
    if not path.exists():
        return rows
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows.setdefault(int(entry["step"]), {}).update(entry["data"])
    return rows


def merge(paths: Iterable[Path]) -> Rows:
    """One run out of its attempts, in order; where two have the same number of the same step, the later one wins.

    Name by name, not row by row: a resumed attempt begins with a row that holds nothing but the validation.
    """
    merged: Rows = {}
    for path in paths:
        for step, row in read(path).items():
            merged.setdefault(step, {}).update(row)
    return dict(sorted(merged.items()))


def write(rows: Rows, path: Path) -> None:
    """In verl's own format, so that what reads one attempt reads the whole run. Atomic."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps({"step": step, "data": row}) + "\n" for step, row in rows.items()))
    temporary.replace(path)


def value(row: Row, series: str) -> float | None:
    for name in SERIES[series]:
        if row.get(name) is not None:
            return float(row[name])
    return None


def accuracy(row: Row) -> float | None:
    """verl's main validation score, averaged over data sources; None where the step was not validated."""
    scores = [float(v) for name, v in row.items() if name.startswith(ACCURACY_PREFIX) and "/mean@" in name]
    return sum(scores) / len(scores) if scores else None


def points(rows: Rows, series: str) -> list[tuple[int, float]]:
    """(step, value) where the series has one; `series` is a name of SERIES, or "accuracy"."""
    get = accuracy if series == "accuracy" else lambda row: value(row, series)
    return [(step, v) for step, row in sorted(rows.items()) if (v := get(row)) is not None]

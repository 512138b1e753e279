"""Reads tensorboard event files with the tensorboard package's own reader; tensorflow is not needed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sspo_verl.tools.runs import metrics_file
from sspo_verl.tools.runs.metrics_file import LARGEST, NOT_FINITE, Reading, Rows

PATTERN = "*tfevents*"
_HEADER, _FOOTER = 12, 4  # bytes around the data of each record


def event_files(folder: Path) -> list[Path]:
    """Event files in the order in which they were started: the time is in their names."""
    return sorted(p for p in folder.glob(PATTERN) if p.is_file())


class _Events(NamedTuple):
    path: Path
    rows: Rows
    began: float
    ended: float  # times of the first and the last scalar


def read_files(paths: Sequence[Path]) -> Reading:
    """Scalars of a folder's event files as one run. A file that was started after the previous one had ended belongs to
    a resumed run; files written at the same time are merged."""
    found, problems = [], []
    for path in paths:
        events, of_file = _read(path)
        problems += of_file
        if events.rows:
            found.append(events)
    attempts: list[_Events] = []
    for events in sorted(found, key=lambda events: events.began):
        if attempts and events.began <= attempts[-1].ended:
            same = attempts[-1]
            for step, row in events.rows.items():
                same.rows.setdefault(step, {}).update(row)
            attempts[-1] = same._replace(ended=max(same.ended, events.ended))
        else:
            attempts.append(events)
    merged = metrics_file.merge((Reading(a.rows, []) for a in attempts), [str(a.path) for a in attempts])
    return Reading(merged.rows, problems + merged.problems)


def read(path: Path) -> Reading:
    """Scalars of one event file by step."""
    events, problems = _read(path)
    return Reading(events.rows, problems)


def _read(path: Path) -> tuple[_Events, list[str]]:
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise ValueError(f"{path} is tensorboard's; to read it: pip install tensorboard ({error})") from error

    rows: Rows = {}
    events = 0
    times = []
    for event in EventFileLoader(str(path)).Load():
        events += 1
        for value in event.summary.value:
            # The reader has converted the old kind of scalars to tensors.
            number = make_ndarray(value.tensor) if value.HasField("tensor") else None
            if number is not None and number.ndim == 0 and number.dtype.kind in "fiu":
                row = rows.setdefault(event.step, {})
                row[value.tag] = float(number) if abs(float(number)) < LARGEST else NOT_FINITE
                times.append(event.wall_time)
    found = _Events(path, dict(sorted(rows.items())), min(times, default=0.0), max(times, default=0.0))
    return found, _problems(path, events)


def _problems(path: Path, events: int) -> list[str]:
    """Check for unread records: the reader stops silently at an incomplete or corrupt one, so count them all."""
    records, rest = _count_records(path)
    if events < records:
        return [f"{path}: record {events + 1} of {records} is damaged; it and what follows were left out"]
    if rest:
        return [f"{path}: the last {rest} bytes are not a complete record (still being written?) and were left out"]
    return []


def _count_records(path: Path) -> tuple[int, int]:
    """(number of complete records, bytes after them)."""
    size, position, records = path.stat().st_size, 0, 0
    with open(path, "rb") as file:
        while position + _HEADER <= size:
            file.seek(position)
            (length,) = struct.unpack("<Q", file.read(8))
            if position + _HEADER + length + _FOOTER > size:
                break
            position += _HEADER + length + _FOOTER
            records += 1
    return records, size - position

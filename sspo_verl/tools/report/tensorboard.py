"""Tensorboard's event files, read by the tensorboard package's own reader; tensorflow is not needed."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from sspo_verl.tools.runs.metrics_file import NOT_FINITE, Reading, Rows

PATTERN = "*tfevents*"
_HEADER, _FOOTER = 12, 4  # bytes around the data of each record


def event_files(folder: Path) -> list[Path]:
    """In the order in which they were begun: the names hold the time."""
    return sorted(p for p in folder.glob(PATTERN) if p.is_file())


def read(path: Path) -> Reading:
    """The scalars of one event file by step."""
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise ValueError(f"{path} is tensorboard's; to read it: pip install tensorboard ({error})") from error

    rows: Rows = {}
    events = 0
    for event in EventFileLoader(str(path)).Load():
        events += 1
        for value in event.summary.value:
            # The reader has turned the old kind of scalar into tensors.
            number = make_ndarray(value.tensor) if value.HasField("tensor") else None
            if number is not None and number.ndim == 0 and number.dtype.kind in "fiu":
                rows.setdefault(event.step, {})[value.tag] = float(number) if math.isfinite(number) else NOT_FINITE
    return Reading(dict(sorted(rows.items())), _problems(path, events))


def _problems(path: Path, events: int) -> list[str]:
    """The reader stops without a word where a record is incomplete or wrong. So count the records there are."""
    records, rest = _count_records(path)
    if events < records:
        return [f"{path}: record {events + 1} of {records} is damaged; it and what follows were left out"]
    if rest:
        return [f"{path}: the last {rest} bytes are not a complete record (still being written?) and were left out"]
    return []


def _count_records(path: Path) -> tuple[int, int]:
    """(complete records, bytes after them)."""
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

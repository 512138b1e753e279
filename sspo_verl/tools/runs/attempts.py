"""The attempts at a run: RUN/attempts/1, RUN/attempts/2, ..., each with its own log and metrics file.

verl's file logger truncates its file when it opens it, so a resumed run must not write to the file of the previous
attempt. The run is the attempts merged.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sspo_verl.tools.runs import metrics_file
from sspo_verl.tools.runs.metrics_file import Reading

FOLDER = "attempts"
METRICS = "metrics.jsonl"
LOG = "verl.log"


def folders(run: Path) -> list[Path]:
    """The attempts' folders, in order."""
    found = [path for path in (run / FOLDER).glob("[0-9]*") if path.name.isdecimal()]
    return sorted(found, key=lambda path: (int(path.name), path.name))


def new(run: Path) -> Path:
    """Create and return the folder of the next attempt."""
    before = folders(run)
    attempt = run / FOLDER / str(int(before[-1].name) + 1 if before else 1)
    attempt.mkdir(parents=True)
    return attempt


def have_metrics(run: Path) -> bool:
    return any((attempt / METRICS).is_file() for attempt in folders(run))


def readings(run: Path) -> list[Reading]:
    """The metrics of each attempt."""
    return [metrics_file.read(attempt / METRICS) for attempt in folders(run)]


def merge(run: Path, of_attempts: Iterable[Reading]) -> Reading:
    """The metrics of all attempts as one run."""
    return metrics_file.merge(of_attempts, list(map(str, folders(run))))


def read(run: Path) -> Reading:
    return merge(run, readings(run))


def run_of(folder: Path) -> Path | None:
    """The run that `folder` is an attempt at; None if it is not the folder of an attempt."""
    return folder.parent.parent if folder.parent.name == FOLDER else None

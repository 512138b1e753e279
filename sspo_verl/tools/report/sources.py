"""Locates the runs of a report: finds and reads their metrics, and notes what is next to them and not read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sspo_verl.tools.report import foreign, tensorboard
from sspo_verl.tools.runs import attempts, metrics_file
from sspo_verl.tools.runs.folder import RunDir
from sspo_verl.tools.runs.metrics_file import Reading
from sspo_verl.tools.steps import ranges

NAMED = 4  # number of files named in a note
BEGUN = "empty, or its first line is being written"


class NoRun(ValueError):
    """There is no run at a path, or no metrics of it yet."""


class Found(NamedTuple):
    """Runs, each a folder or a metrics file, and notes on what was skipped."""

    runs: list[Path]
    notes: list[str]


def find(path: Path) -> Found:
    """The runs at `path`. A folder may itself be a run, or contain runs."""
    if not path.exists():
        raise NoRun(f"{path} is not there. Name a run's folder, its metrics (JSONL), or a tensorboard folder.")
    if path.is_file():
        return Found([path], [])
    here = _in(path)
    if here.runs:
        return Found(here.runs, [*here.notes, *_further_down(path)])
    below = [_in(child) for child in _folders(path)]
    if runs := [run for found in below for run in found.runs]:
        return Found(runs, [*here.notes, *(note for found in below for note in found.notes)])
    others = foreign.in_folder(path)
    raise NoRun(
        f"{path} has no metrics: no attempts/*/metrics.jsonl, no JSONL of verl's file logger and no tensorboard "
        "events, neither itself nor one folder down. Add `file` to trainer.logger, or wait for the first step of a "
        f"run that has just begun.{f' What is there: {others}.' if others else ''}"
    )


def _folders(path: Path) -> list[Path]:
    return [child for child in sorted(path.iterdir()) if child.is_dir()]


def _in(folder: Path) -> Found:
    files, notes = _metrics_files(folder)
    if attempts.have_metrics(folder):
        return Found([folder], notes)
    if len(files) > 1 and folder / attempts.METRICS not in files:
        return Found(files, [*notes, *_not_read(folder, tensorboard.event_files(folder))])
    return Found([folder] if files or tensorboard.event_files(folder) else [], notes)


def metrics_files(folder: Path) -> list[Path]:
    return _metrics_files(folder)[0]


def _metrics_files(folder: Path) -> tuple[list[Path], list[str]]:
    """verl's metrics files in the folder, and a note on files that are neither those nor dumps of responses."""
    found: list[Path] = []
    others: list[Path] = []
    unreadable: list[str] = []
    for file in sorted(folder.glob("*.jsonl")):
        try:
            if not file.is_file() or foreign.is_dump(file):
                continue
            (found if metrics_file.is_metrics_file(file) else others).append(file)
        except OSError as error:
            unreadable.append(f"{folder}: {file.name} could not be read ({error.strerror})")
    said = [f"{file.name} is {foreign.describe(file) or BEGUN}" for file in others[:NAMED]]
    more = f"; and {len(others) - NAMED} more" if len(others) > NAMED else ""
    passed_over = [f"{folder}: skipped as not metrics: {'; '.join(said)}{more}"] if others else []
    return found, [*unreadable, *passed_over]


def _further_down(path: Path) -> list[str]:
    """A note on runs in a run's subfolders that are not part of it."""
    run = RunDir(path)
    own = {path / attempts.FOLDER, run.checkpoints, run.validation, run.rollouts, run.hydra, run.cache}
    others = [child for child in _folders(path) if child not in own and _in(child).runs]
    return _not_read(path, others)


def _not_read(folder: Path, others: Iterable[Path]) -> list[str]:
    names = [str(other.relative_to(folder)) for other in others]
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    have, them = ("has metrics too and was", "it") if len(names) == 1 else ("have metrics too and were", "them")
    return [f"{folder}: {', '.join(names[:NAMED])}{more} {have} not read; name {them} to see {them}"]


class Source(NamedTuple):
    """What was read of a run. abandoned: steps that an attempt reached and that the run went back behind."""

    reading: Reading
    abandoned: frozenset[int] = frozenset()


def read(path: Path) -> Source:
    """The metrics of a run that `find` found."""
    if path.is_file():
        return Source(tensorboard.read(path) if "tfevents" in path.name else metrics_file.read(path))
    published, beside = path / attempts.METRICS, [*metrics_files(path), *tensorboard.event_files(path)]
    problems: list[str] = []
    tried = attempts.have_metrics(path)
    if tried:
        each = attempts.readings(path)
        (rows, problems), steps = attempts.merge(path, each), {step for one in each for step in one.rows}
        problems += _unnumbered(path)
        if any(rows.values()):
            problems += _newer(published, steps) if published in beside else []
            problems += _not_read(path, (file for file in beside if file != published))
            return Source(Reading(rows, problems), frozenset(steps - rows.keys()))
    chosen = _choose(path, published)
    rows, of_chosen = _read_all(chosen)
    problems += of_chosen
    if tried and rows:
        named = ", ".join(file.name for file in chosen)
        problems.append(f"{path}: no step could be read in {attempts.FOLDER}/, so {named} was read instead")
    problems += _not_read(path, (file for file in beside if file not in chosen))
    return Source(Reading(rows, problems))


def _choose(path: Path, published: Path) -> list[Path]:
    """The files that make up the run, out of those in a folder; empty if that is ambiguous."""
    files = metrics_files(path)
    if published in files:
        return [published]
    return tensorboard.event_files(path) if not files else files if len(files) == 1 else []


def _read_all(files: list[Path]) -> Reading:
    if len(files) == 1 and files[0].suffix == ".jsonl":
        return metrics_file.read(files[0])
    return tensorboard.read_files(files)


def _newer(published: Path, steps: set[int]) -> list[str]:
    """A note if the file into which the quickstart merges all attempts has steps that the attempts do not have."""
    more = sorted(metrics_file.read(published).rows.keys() - steps)
    return [f"{published} has steps ({ranges(more)}) that no attempt has, and was not read; name it to see them"] * (
        bool(more)
    )


def _unnumbered(path: Path) -> list[str]:
    """A note on folders of metrics among the attempts that are not attempts."""
    others = [
        child / attempts.METRICS
        for child in _folders(path / attempts.FOLDER)
        if child not in attempts.folders(path) and (child / attempts.METRICS).is_file()
    ]
    return _not_read(path, others)

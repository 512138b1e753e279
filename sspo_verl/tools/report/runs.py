"""The runs of a report: finding their metrics, naming them, and putting seeds of one algorithm together."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sspo_verl.tools.files import split
from sspo_verl.tools.report import foreign, series, settings, tensorboard
from sspo_verl.tools.runs import attempts, metrics_file
from sspo_verl.tools.runs import settings as run_settings
from sspo_verl.tools.runs.metrics_file import Reading, Rows
from sspo_verl.tools.runs.settings import Settings

NAMED = 4  # of steps or metrics in a remark
_OF_THE_POLICY = ("actor/", "critic/", "val-core/")  # metrics without which there is no training to speak of


class NoRun(ValueError):
    """A path at which there is no run, or nothing of it yet."""


@dataclass(frozen=True)
class Run:
    label: str
    path: Path
    rows: Rows
    settings: Settings = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return max(self.rows)

    @property
    def planned_steps(self) -> int | None:
        return settings.planned_steps(self.settings)


@dataclass(frozen=True)
class Group:
    """The runs that bear the same label: seeds of one algorithm."""

    label: str
    runs: list[Run]

    @property
    def rows(self) -> list[Rows]:
        return [run.rows for run in self.runs]


def load(arguments: Iterable[str]) -> tuple[list[Group], list[str]]:
    """The runs that the arguments (PATH or NAME=PATH) name, by label, and what there is to say about them."""
    runs: list[Run] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for argument in arguments:
        name, path = _split(argument)
        for source in find(path):
            if source.resolve() in seen:
                notes.append(f"{source} was named twice and is counted once")
                continue
            seen.add(source.resolve())
            run, problems = read_run(source, name)
            runs.append(run)
            notes += problems
    groups: dict[str, Group] = {}
    for run in runs:
        groups.setdefault(run.label, Group(run.label, [])).runs.append(run)
    for group in groups.values():
        notes += _remarks(group)
    return list(groups.values()), [*notes, *_aggregations(runs)]


def _split(argument: str) -> tuple[str | None, Path]:
    try:
        return split(argument)
    except ValueError as error:
        raise NoRun(str(error)) from error


def find(path: Path) -> list[Path]:
    """The runs at `path`, each a folder or a metrics file. A folder may itself be a run, or hold runs."""
    if not path.exists():
        raise NoRun(f"{path} is not there. Name a run's folder, its metrics (JSONL), or a tensorboard folder.")
    if path.is_file():
        return [path]
    if runs := _runs_in(path):
        return runs
    if runs := [run for child in sorted(path.iterdir()) if child.is_dir() for run in _runs_in(child)]:
        return runs
    others = foreign.in_folder(path)
    raise NoRun(
        f"{path} holds no metrics: no attempts/*/metrics.jsonl, no JSONL of verl's file logger and no tensorboard "
        "events, neither itself nor one folder down. Add `file` to trainer.logger, or wait for the first step of a "
        f"run that has just begun.{f' What is there: {others}.' if others else ''}"
    )


def _runs_in(folder: Path) -> list[Path]:
    if attempts.have_metrics(folder):
        return [folder]
    files = _metrics_files(folder)
    if len(files) > 1 and folder / attempts.METRICS not in files:
        return files  # verl's file logger puts the runs of a project side by side
    return [folder] if files or tensorboard.event_files(folder) else []


def _metrics_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.jsonl")) if file.is_file() and metrics_file.is_metrics_file(file)]


def read_run(path: Path, name: str | None = None) -> tuple[Run, list[str]]:
    """The run at `path` as far as it came, and what could not be read of it."""
    reading = _read(path)
    if not any(reading.rows.values()):
        if not reading.rows and path.is_file() and (kind := foreign.describe(path)):
            raise NoRun(f"{path} is not a metrics file of verl's but {kind}. {foreign.READABLE}.")
        said = "".join(f" ({problem})" for problem in reading.problems)
        raise NoRun(f"{path} holds no step's metrics yet: wait for the run's first step, or leave it out.{said}")
    found, problems = run_settings.read(path) if path.is_dir() else _settings_of_file(path)
    label = printable(name or settings.algorithm(found) or _name(path))
    return Run(label, path, reading.rows, found), [*reading.problems, *problems]


def printable(name: str) -> str:
    """A name without control characters, which XML refuses and a terminal obeys; "?" if nothing is left."""
    return "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cs")) or "?"


def _read(path: Path) -> Reading:
    if path.is_file():
        return tensorboard.read(path) if "tfevents" in path.name else metrics_file.read(path)
    if attempts.have_metrics(path):
        return attempts.read(path)
    if files := _metrics_files(path):
        preferred = path / attempts.METRICS
        return metrics_file.read(preferred if preferred in files else files[0])
    return metrics_file.merge(map(tensorboard.read, tensorboard.event_files(path)))


def _settings_of_file(path: Path) -> tuple[Settings, list[str]]:
    """Of the folder around the file, if the file is all the metrics there are in it."""
    folder = path.parent
    if run := attempts.run_of(folder):
        return run_settings.read(run)
    others = [f for f in (*_metrics_files(folder), *tensorboard.event_files(folder)) if f != path]
    return ({}, []) if others else run_settings.read(folder)


def _name(path: Path) -> str:
    if path.is_file() and path.stem != "metrics" and "tfevents" not in path.name:
        return path.stem
    return (path if path.is_dir() else path.parent).resolve().name


def _remarks(group: Group) -> list[str]:
    remarks = []
    for run in group.runs:
        remarks += _not_finite(run)
        if run.planned_steps and run.steps < run.planned_steps:
            remarks.append(
                f"{run.path} ({run.label}) is at step {run.steps} of {run.planned_steps}: "
                "it is still going, or ended before its time"
            )
    steps = sorted({run.steps for run in group.runs})
    if len(steps) > 1:
        remarks.append(
            f"the seeds of {group.label} end at different steps ({', '.join(map(str, steps))}): beyond the first "
            "of these, mean and band are of those that came so far"
        )
    if keys := settings.differences([run.settings for run in group.runs]):
        named = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
        remarks.append(
            f"the runs labelled {group.label} differ in settings ({named}), yet are shown as seeds of one algorithm; "
            "NAME=PATH gives them labels of their own"
        )
    return remarks


def _not_finite(run: Run) -> list[str]:
    """What was NaN or infinite up to its end: the run has broken down. What was so for a while: said too."""
    remarks = []
    found = series.not_finite(run.rows)
    to_the_end = {name: steps for name, (steps, last) in found.items() if last}
    for_a_while = {name: steps for name, (steps, last) in found.items() if not last}
    if to_the_end:
        first = min(_unbroken_end(run, name) for name in to_the_end)
        broken = any(name.startswith(_OF_THE_POLICY) for name in to_the_end)
        remarks.append(
            f"{run.path} ({run.label}) is NaN or infinite from step {first} to its last, {run.steps}: "
            + _names(to_the_end)
            + (". The run has broken down, however healthy its curves look up to there" if broken else "")
        )
    if for_a_while:
        steps = sorted({step for some in for_a_while.values() for step in some})
        listed = ", ".join(map(str, steps[:NAMED])) + (", ..." if len(steps) > NAMED else "")
        remarks.append(f"{run.path} ({run.label}) was NaN or infinite at step {listed}: {_names(for_a_while)}")
    return remarks


def _unbroken_end(run: Run, name: str) -> int:
    """The first of the steps, up to the last one that has the metric, at all of which it is not finite."""
    first = run.steps
    for step, value in reversed(series.recorded(run.rows, name)):
        if math.isfinite(value):
            break
        first = step
    return first


def _names(metrics: Iterable[str]) -> str:
    """A few of them, those that people look at first."""
    seen = [name for names in series.SERIES.values() for name in names]
    names = sorted(metrics, key=lambda name: (name not in seen, name))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _aggregations(runs: list[Run]) -> list[str]:
    """A remark where runs side by side aggregate their losses differently: that difference is not an algorithm's."""
    modes: dict[str, list[str]] = {}
    for run in runs:
        if mode := settings.aggregation(run.settings):
            modes.setdefault(mode, []).append(run.label)
    if len(modes) < 2:
        return []
    said = "; ".join(f"{mode}: {', '.join(dict.fromkeys(labels))}" for mode, labels in modes.items())
    return [f"the runs differ in {settings.AGGREGATION} ({said}), which changes the loss whatever the algorithm"]

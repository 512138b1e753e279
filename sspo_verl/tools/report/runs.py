"""The runs of a report: finds their metrics, names them, and groups the seeds of one algorithm."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sspo_verl.tools.files import split
from sspo_verl.tools.report import foreign, series, settings, sources, tensorboard
from sspo_verl.tools.report.sources import NoRun
from sspo_verl.tools.runs import attempts
from sspo_verl.tools.runs import settings as run_settings
from sspo_verl.tools.runs.metrics_file import Rows
from sspo_verl.tools.runs.settings import Settings

NAMED = 4  # number of steps or metrics named in a remark
_EACH_STEP = [name for name in series.SERIES if name != "seconds per validation"]
_UNSEEN, _JOINERS = ("Cc", "Cf", "Cs", "Zl", "Zp"), "\u200c\u200d"
_OF_THE_POLICY = ("actor/", "critic/", "val-core/")  # without any of these metrics there was no training


@dataclass(frozen=True)
class Run:
    label: str
    path: Path
    rows: Rows
    settings: Settings = field(default_factory=dict)
    abandoned: frozenset[int] = frozenset()  # steps of an earlier attempt that the run went back behind

    @property
    def steps(self) -> int:
        return max(self.rows)

    @property
    def planned_steps(self) -> int | None:
        return settings.planned_steps(self.settings)


@dataclass(frozen=True)
class Group:
    """The runs with the same label: seeds of one algorithm."""

    label: str
    runs: list[Run]

    @property
    def rows(self) -> list[Rows]:
        return [run.rows for run in self.runs]


def load(arguments: Iterable[str]) -> tuple[list[Group], list[str]]:
    """The runs that the arguments (PATH or NAME=PATH) name, by label, and remarks on them."""
    runs: list[Run] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for argument in arguments:
        name, path = _split(argument)
        found, passed_over = sources.find(path)
        notes += passed_over
        empty: list[NoRun] = []
        for source in found:
            if source.resolve() in seen:
                notes.append(f"{source} was named twice and is counted once")
                continue
            seen.add(source.resolve())
            try:
                run, problems = read_run(source, name)
            except NoRun as error:
                empty.append(error)
                continue
            runs.append(run)
            notes += problems
        if empty and len(empty) == len(found):
            raise empty[0]
        notes += map(str, empty)
    groups: dict[str, Group] = {}
    for run in runs:
        groups.setdefault(run.label, Group(run.label, [])).runs.append(run)
    for group in groups.values():
        notes += _remarks(group)
    return list(groups.values()), [printable(note) for note in (*notes, *_aggregations(runs))]


def _split(argument: str) -> tuple[str | None, Path]:
    try:
        return split(argument)
    except ValueError as error:
        raise NoRun(str(error)) from error


def read_run(path: Path, name: str | None = None) -> tuple[Run, list[str]]:
    """The run at `path` up to its latest step, and what could not be read."""
    reading, abandoned = sources.read(path)
    if not any(reading.rows.values()):
        if not reading.rows and path.is_file() and (kind := foreign.describe(path)):
            raise NoRun(f"{path} is not a metrics file of verl's but {kind}. {foreign.READABLE}.")
        said = "".join(f" ({problem})" for problem in reading.problems)
        raise NoRun(f"{path} has no step's metrics yet: wait for the run's first step, or leave it out.{said}")
    found, problems = run_settings.read(path) if path.is_dir() else _settings_of_file(path)
    label = printable(name or settings.algorithm(found) or _name(path))
    return Run(label, path, reading.rows, found, abandoned), [*reading.problems, *problems]


def printable(name: str) -> str:
    """Text without characters that are invalid in XML, control a terminal, are invisible, or reverse the text
    direction; "?" if nothing is left. Joiners are kept: they are part of letters and emoji."""
    return "".join(c for c in name if c in _JOINERS or unicodedata.category(c) not in _UNSEEN) or "?"


def _settings_of_file(path: Path) -> tuple[Settings, list[str]]:
    """Settings in the file's folder, if the file is the only metrics file there."""
    folder = path.parent
    if run := attempts.run_of(folder):
        return run_settings.read(run)
    others = [f for f in (*sources.metrics_files(folder), *tensorboard.event_files(folder)) if f != path]
    return ({}, []) if others else run_settings.read(folder)


def _name(path: Path) -> str:
    if path.is_file() and path.stem != "metrics" and "tfevents" not in path.name:
        return path.stem
    return (path if path.is_dir() else path.parent).resolve().name


def _remarks(group: Group) -> list[str]:
    remarks = []
    for run in group.runs:
        remarks += _not_finite(run)
        remarks += _ended(run)
        if run.planned_steps and run.steps < run.planned_steps:
            remarks.append(
                f"{run.path} ({run.label}) is at step {run.steps} of {run.planned_steps}: "
                "it is still running, or ended early"
            )
    steps = sorted({run.steps for run in group.runs})
    if len(steps) > 1:
        remarks.append(
            f"the seeds of {group.label} end at different steps ({', '.join(map(str, steps))}): beyond the first "
            "of these, mean and band are of those that got that far"
        )
    if keys := settings.differences([run.settings for run in group.runs]):
        named = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
        remarks.append(
            f"the runs labelled {group.label} differ in settings ({named}), yet are shown as seeds of one algorithm; "
            "NAME=PATH gives them labels of their own"
        )
    return remarks


def _not_finite(run: Run) -> list[str]:
    """Remarks on metrics that were NaN or infinite until the end (the run broke down), or for a while."""
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
            + (". The run has broken down, even if its curves look healthy before" if broken else "")
        )
    if for_a_while:
        steps = sorted({step for some in for_a_while.values() for step in some})
        listed = ", ".join(map(str, steps[:NAMED])) + (", ..." if len(steps) > NAMED else "")
        remarks.append(f"{run.path} ({run.label}) was NaN or infinite at step {listed}: {_names(for_a_while)}")
    return remarks


def _ended(run: Run) -> list[str]:
    """Remarks on metrics that stopped being measured: their last value is not from the run's last step."""
    ends: dict[int, list[str]] = {}
    for name in _EACH_STEP:
        if (last := series.ended(run.rows, name)) is not None:
            ends.setdefault(last, []).append(name)
    return [
        f"{run.path} ({run.label}) has no {', '.join(names)} after step {last}, though it got to step {run.steps}: "
        "its last value shown is of that step"
        for last, names in sorted(ends.items())
    ]


def _unbroken_end(run: Run, name: str) -> int:
    """First step of the final stretch in which the metric is never finite, up to the last step that has it."""
    first = run.steps
    for step, value in reversed(series.recorded(run.rows, name)):
        if math.isfinite(value):
            break
        first = step
    return first


def _names(metrics: Iterable[str]) -> str:
    """A few of the metrics, the most important first."""
    seen = [name for names in series.SERIES.values() for name in names]
    names = sorted(metrics, key=lambda name: (name not in seen, name))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _aggregations(runs: list[Run]) -> list[str]:
    """A remark if compared runs aggregate their losses differently: that is not a difference between algorithms."""
    modes: dict[str, list[str]] = {}
    for run in runs:
        if mode := settings.aggregation(run.settings):
            modes.setdefault(mode, []).append(run.label)
    if len(modes) < 2:
        return []
    said = "; ".join(f"{mode}: {', '.join(dict.fromkeys(labels))}" for mode, labels in modes.items())
    return [f"the runs differ in {settings.AGGREGATION} ({said}), which changes the loss whatever the algorithm"]

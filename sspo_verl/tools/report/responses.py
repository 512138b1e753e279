"""Chooses the responses to show: correct and wrong ones from the rollout dumps of a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sspo_verl.names import KEY
from sspo_verl.tools.analyze.cut import ByTokens
from sspo_verl.tools.analyze.fields import Columns, take
from sspo_verl.tools.analyze.read import rows
from sspo_verl.tools.analyze.sample import Sample
from sspo_verl.tools.analyze.thresholds import Thresholds, defaults
from sspo_verl.tools.report.runs import Group, Run
from sspo_verl.tools.report.tinted import Tinted, tinted
from sspo_verl.tools.runs import attempts
from sspo_verl.tools.runs.folder import RunDir
from sspo_verl.tools.steps import ranges

FOLDER = "trainer.rollout_data_dir"
HOW_TO_DUMP = (
    f"{FOLDER}=FOLDER makes verl write the responses of each step, and {KEY}.dump_segments=64 the entropy, the ratio "
    "and the clip of their segments. `sspo report` looks in rollouts/ in the run's folder, and where the settings "
    "beside the run say."
)


class NoStep(ValueError):
    """No run has a dump of a requested step."""


@dataclass(frozen=True)
class Wanted:
    """What to show. steps: None for the first, middle and last one. per_step: number of responses per label."""

    steps: tuple[int, ...] | None = None
    per_step: int = 8
    tokenizer: Any = None


@dataclass(frozen=True)
class Step:
    number: int
    total: int  # responses in the dump
    correct: int
    wrong: int
    clipped: int  # responses with a clipped segment
    too_long: int  # responses not shown because of their length
    responses: list[Tinted]


@dataclass(frozen=True)
class OfLabel:
    """Responses shown for one label: from the first of its runs that has dumps."""

    style: int  # index of its label
    label: str
    folder: Path
    thresholds: Thresholds
    steps: list[Step]


def choose(groups: list[Group], wanted: Wanted) -> list[OfLabel]:
    """Choose responses for each label with dumps. Raises NoStep if none of them has a requested step."""
    dumps = {
        place: next(((run, found) for run in group.runs if (found := dump_files(run))), None)
        for place, group in enumerate(groups)
    }
    dumps = {place: of_run for place, of_run in dumps.items() if of_run}
    there = sorted({step for _, found in dumps.values() for step in found})
    if missing := [step for step in wanted.steps or () if step not in there]:
        names = f"there are those of the steps {ranges(there)}" if there else "there is none"
        raise NoStep(f"--steps: no run has a rollout dump of step {missing[0]}; {names}.")
    shown = []
    for place, (run, found) in dumps.items():
        numbers = _first_middle_last(sorted(found)) if wanted.steps is None else wanted.steps
        thresholds, settings = _thresholds(run), _segments(run)
        cutter = _cutter(wanted.tokenizer, settings)
        steps = [
            _step(number, found[number], wanted.per_step, cutter, thresholds, lines_too=not settings)
            for number in numbers
            if number in found
        ]
        if steps:
            shown.append(OfLabel(place, groups[place].label, found[steps[0].number].parent, thresholds, steps))
    return shown


def dump_files(run: Run) -> dict[int, Path]:
    """{step: file} of verl's rollout dumps: in rollouts/ in the run's folder, or where its settings say. Without those
    of an earlier attempt for steps that the run went back behind when it resumed."""
    base = run.path if run.path.is_dir() else attempts.run_of(run.path.parent)
    folders = [RunDir(base).rollouts] if base else []
    configured = run.settings.get(FOLDER)
    if isinstance(configured, str) and "${" not in configured:
        folders.append(Path(configured))
    for folder in folders:
        files = {int(file.stem): file for file in folder.glob("*.jsonl") if file.stem.isdecimal()}
        if files:
            return {step: file for step, file in files.items() if step not in run.abandoned}
    return {}


def _first_middle_last(steps: Sequence[int]) -> list[int]:
    return sorted({steps[0], steps[len(steps) // 2], steps[-1]})


def _thresholds(run: Run) -> Thresholds:
    """The thresholds in the run's settings, else the defaults of algorithm=sspo."""
    found = [run.settings.get(f"{KEY}.entropy_{name}") for name in Thresholds._fields]
    return Thresholds(*(v if isinstance(v, int | float) else d for v, d in zip(found, defaults(), strict=True)))


def _segments(run: Run) -> dict[str, Any]:
    """The run's settings of `segmenters.SegmentSettings` that are not the defaults."""
    found = {
        key.removeprefix(f"{KEY}."): value for key, value in run.settings.items() if key.startswith(f"{KEY}.segment")
    }
    return {name: value for name, value in found.items() if value not in (None, "line_break")}


def _cutter(tokenizer: Any, settings: dict[str, Any]) -> ByTokens | None:
    """Segmenter of the run's texts; None if it cannot be reproduced: no tokenizer, entropies or user's segmenter."""
    if tokenizer is None:
        return None
    from sspo_verl.segmenters import SegmentSettings, factory_of

    if not settings:
        return ByTokens(tokenizer)
    try:
        needs_entropy = factory_of(settings.get("segmenter", "line_break")).needs_entropy
        return None if needs_entropy else ByTokens(tokenizer, SegmentSettings(**settings))
    except ValueError:
        return None


def _step(
    number: int, file: Path, per_step: int, cutter: ByTokens | None, thresholds: Thresholds, lines_too: bool
) -> Step:
    sample, columns = Sample(per_step), Columns()
    for row in rows(file, columns.all()):
        response = row.problem if row.value is None else take(row.where, row.value, columns)
        if not isinstance(response, str):
            sample.add(response)
    responses = [tinted(response, cutter, thresholds, lines_too) for response in sample.chosen()]
    return Step(
        number, sample.seen, sample.count(True), sample.count(False), sample.clipped, sample.too_long, responses
    )

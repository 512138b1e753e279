"""Checks of a segmenter: it can be created, and has the invariances of every segmenter."""

from __future__ import annotations

from sspo_verl.tools.doctor.check import FAILED, OK, Check
from sspo_verl.tools.doctor.invariances import INVARIANCES
from sspo_verl.tools.doctor.processes import Notes

NAME = "segmenter"
FIX = (
    "Compute each row from its own valid tokens alone, with integers and prefix scans; docs/segments.md has an example "
    "and the parts to build from."
)


def check_segmenter(spec: str, notes: Notes) -> list[Check]:
    if "segmenter" in notes.lines or not notes.lines:
        fix = "Fix what the message names. If the segmenter needs more than a small tokenizer has, pass --model."
        return [Check(NAME, FAILED, f"{spec} cannot be created: {notes.why_not('segmenter')}", fix)]
    return [_check(f"{NAME}: {name}", name, notes) for name in INVARIANCES]


def _check(title: str, name: str, notes: Notes) -> Check:
    found = notes.value(name)
    problem = notes.why_not(name) if found is None else found["problem"]
    return Check(title, FAILED, problem, FIX) if problem else Check(title, OK, "holds")
